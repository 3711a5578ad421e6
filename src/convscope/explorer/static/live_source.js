// Where pictures come from: a camera, a video file, or a picture that is there already.

const ABSENT = "The browser gives its camera only to pages of this machine (http://127.0.0.1) and to pages over https. "
  + "Open the explorer on the machine that it runs on, or through ssh -L, or over https. A video or a picture works here, too.";

const REFUSED = {
  NotAllowedError: "The browser was not allowed to use the camera: allow it beside the address, and try again. A video or a picture works, too.",
  NotFoundError: "There is no camera here. A video or a picture works, too.",
  NotReadableError: "Another program uses the camera: close it, and try again.",
};

export class Source {
  #video;
  #side;
  #still = null;
  #kept = null;
  #stream = null;
  #address = "";
  held = false;

  constructor(video, side) { this.#video = video; this.#side = side; }

  // Whether another picture comes by itself.
  get moving() { return Boolean(this.#stream || this.#address) && !this.held && !this.#video.paused && !document.hidden; }

  // Whether it is a picture that the server has as the network reads it.
  get given() { return this.#still !== null; }

  async camera() {
    if (!navigator.mediaDevices) throw new Error(ABSENT);
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
    } catch (error) {
      throw new Error(REFUSED[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    this.stop();
    this.#stream = stream;
    this.#video.srcObject = stream;
    await this.#video.play();
  }

  async film(file) {
    this.stop();
    this.#address = URL.createObjectURL(file);
    this.#video.src = this.#address;
    this.#video.controls = true;
    this.#video.hidden = false;
    try {
      await this.#video.play();
    } catch {
      this.stop();
      throw new Error(`${file.name} is no video that this browser plays: MP4 (H.264) and WebM are.`);
    }
  }

  async picture(id, address) {
    this.stop();
    const image = new Image();
    image.src = address;
    await image.decode();
    this.#still = { id, canvas: painted(image, image.naturalWidth, image.naturalHeight) };
  }

  // The picture that is next: its canvas, and the blob to send, or the id of what the server has.
  async next() {
    if (this.#still) return { canvas: this.#still.canvas, picture: this.#still.id, blob: null };
    if (this.held && this.#kept) return this.#kept;
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width) return null;
    const scale = Math.min(1, this.#side / Math.min(width, height));
    const canvas = painted(this.#video, Math.round(width * scale), Math.round(height * scale));
    const blob = await new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.9); });
    this.#kept = { canvas, picture: "", blob };
    return this.#kept;
  }

  stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#video.srcObject = null;
    this.#video.removeAttribute("src");
    this.#video.hidden = true;
    this.#video.controls = false;
    this.#stream = this.#still = this.#kept = null;
    this.#address = "";
  }
}

function painted(image, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  return canvas;
}
