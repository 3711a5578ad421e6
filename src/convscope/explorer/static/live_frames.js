// Frames go up one at a time: the next is taken only after the answer, so that it is the newest that there is by then.

export class Frames {
  #socket;
  #wish = "";
  #facts = null;
  #images = [];
  #answered = null;

  constructor(path, lost) {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    this.#socket = new WebSocket(`${scheme}//${location.host}${path}`);
    this.#socket.binaryType = "blob";
    this.#socket.addEventListener("message", (event) => this.#take(event.data));
    this.#socket.addEventListener("close", () => { this.#answered = null; lost(); });
    this.opened = new Promise((resolve) => { this.#socket.addEventListener("open", resolve); });
  }

  get busy() { return this.#answered !== null; }

  close() { this.#socket.close(); }

  // Send a picture for a wish, null where the wish names one; `answered` gets the facts and their images, by name.
  send(wish, picture, answered) {
    if (this.busy || this.#socket.readyState !== WebSocket.OPEN) return false;
    this.#answered = answered;
    const text = JSON.stringify(wish);
    if (text !== this.#wish || !picture) this.#socket.send(text);
    this.#wish = text;
    if (picture) this.#socket.send(picture);
    return true;
  }

  #take(data) {
    if (typeof data === "string") {
      this.#facts = JSON.parse(data);
      this.#images = [];
    } else {
      this.#images.push(data);
    }
    const names = this.#facts.images;
    if (this.#images.length < names.length || !this.#answered) return;
    const answered = this.#answered;
    this.#answered = null;
    answered(this.#facts, Object.fromEntries(names.map((name, at) => [name, this.#images[at]])));
  }
}
