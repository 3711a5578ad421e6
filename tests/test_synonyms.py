"""Words for wishes: a name that does not exist is answered by what was wanted, on every surface."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import convscope
from convscope import load
from convscope.cli import _OWN, run
from convscope.commands.defaults import options_of
from convscope.commands.registered import COMMON, ONLY_METHODS
from convscope.data.samples import digits
from convscope.errors import OptionError
from convscope.listing import in_python, listing
from convscope.stylizing.settings import Settings
from convscope.synonyms import OPTIONS, THINGS, answer, hint, plain
from convscope.zoo.reading import Reading

Capture = pytest.CaptureFixture[str]

PEERS = {
    "captum": "Saliency InputXGradient IntegratedGradients DeepLift DeepLiftShap GradientShap GuidedBackprop "
    "GuidedGradCam Deconvolution FeatureAblation FeaturePermutation Occlusion ShapleyValueSampling ShapleyValues Lime "
    "KernelShap LRP NoiseTunnel LayerGradCam LayerActivation LayerConductance InternalInfluence LayerDeepLift LayerLRP "
    "LayerIntegratedGradients LayerGradientXActivation LayerFeatureAblation NeuronConductance NeuronGradient TCAV "
    "NeuronIntegratedGradients NeuronGuidedBackprop NeuronDeconvolution NeuronFeatureAblation TracInCP infidelity "
    "sensitivity_max visualize_image_attr visualize_image_attr_multiple AttributionVisualizer FGSM PGD "
    "MinParamPerturbation",
    "pytorch-grad-cam": "GradCAM HiResCAM GradCAMPlusPlus XGradCAM AblationCAM ScoreCAM EigenCAM EigenGradCAM LayerCAM "
    "FullGrad GradCAMElementWise KPCA_CAM FEM ShapleyCAM FinerCAM SegEigenCAM RefineCAM RandomCAM ROAD "
    "DeepFeatureFactorization GuidedBackpropReLUModel show_cam_on_image run_dff_on_image ClassifierOutputTarget "
    "BinaryClassifierOutputTarget SemanticSegmentationTarget",
    "torch-cam": "CAM SmoothGradCAMpp GradCAMpp SSCAM ISCAM LeGrad overlay_mask explain",
    "lucid": "lucid lucent render_vis feature_vis channel neuron direction diversity activation_atlas caricature "
    "import_model get_model_layers deepdream cppn param",
    "zennit": "LRP SmoothGrad Attributor Composite EpsilonPlus canonizer crp CondAttribution imgify",
    "TorchRay": "excitation_backprop contrastive_excitation_backprop deconvnet extremal_perturbation linear_approx "
    "pointing_game Probe",
    "xplique": "GradCAMPP VarGrad SquareGrad SobolAttributionMethod HsicAttributionMethod Rise MuFidelity Deletion "
    "Insertion AverageStability CAV CRAFT ForGrad MaCo",
    "tf-keras-vis": "Gradcam GradcamPlusPlus Scorecam FasterScoreCAM ActivationMaximization",
    "Quantus": "PixelFlipping MPRT SmoothMPRT EfficientMPRT RandomLogit PointingGame MaxSensitivity "
    "FaithfulnessCorrelation RelevanceRankAccuracy",
    "deepvis": "find_max_acts crop_max_patches deconv",
    "flashtorch": "Backprop GradientAscent calculate_gradients visualize",
    "others": "XRAI GuidedIG BlurIG get_activations display_activations create_feature_extractor get_graph_node_names "
    "neural_style style_transfer Horama summit Insights keract nnsight PatternNet PatternAttribution create_analyzer "
    "VanillaGradients GradientsInputs ExtractActivations OcclusionSensitivity inverted_representation",
    "plain words": "top dead heatmap activations visualize predict classify segmentation summary receptive_field "
    "feature_maps kernels accuracy report video crop sanity methods models recipe attention",
}
OPTION_PEERS = (
    "target layer_name target_layer target_layers baselines sliding_window_shapes strides n_steps n_samples nt_samples "
    "stdevs perturbations_per_eval internal_batch_size cmap alpha outlier_perc seed_input regularizers callbacks "
    "image_path output_dir num_iterations image_size imgsz model checkpoint lr batch_size filter_idxs "
    "expected_class_idx class_names neuron_selector push_layer push_channel saliency_layer show_progress style_image "
    "content_image"
)


@pytest.mark.parametrize("package", PEERS)
def test_every_name_of_a_peer_is_answered(package: str) -> None:
    commands = {name: name for name in (*listing(), *_OWN)}
    for name in PEERS[package].split():
        assert name in commands or answer(name, THINGS, commands, "{}"), name


def everything() -> set[str]:
    """All options and keys that exist anywhere."""
    names = {option for each in listing().values() for option in each.options} | {*COMMON, *ONLY_METHODS}
    for _, command in _OWN.values():
        names |= set(options_of(command))
    return names | set(Reading.__optional_keys__) | set(Settings.__dataclass_fields__) | {"regularizers", "callbacks"}


def test_every_option_of_a_peer_is_answered() -> None:
    options = {name: name for name in everything()}
    unanswered = [name for name in OPTION_PEERS.split() if name not in options and not answer(name, OPTIONS, options)]
    assert not [name for name in unanswered if name not in ("image_path", "content_image")]  # arguments


def test_what_is_named_exists_and_nothing_that_exists_is_renamed() -> None:
    there = {*listing(), *_OWN, *convscope.__all__}
    assert {name for wish in THINGS for name in wish.here} <= there
    assert {name for wish in OPTIONS for name in wish.here} <= everything() | {"json", "load"}
    asked = [name.casefold() for wish in THINGS for name in wish.names.split()]
    assert not set(asked) & {*listing(), *_OWN}
    for table in (THINGS, OPTIONS):
        counts = Counter(name.casefold() for wish in table for name in wish.names.split())
        assert not [name for name, count in counts.items() if count > 1]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("heatmap", "for a map of what an answer depends on, use grad_cam, integrated_gradients or occlusion"),
        ("Heat-Maps", "for a map of what an answer depends on"),
        ("hetmap", "for a map of what an answer depends on"),  # a slip in what others call it
        ("lime", "convscope has no LIME yet; rise and occlusion answer a similar question"),
        ("GuidedBackProp", "it is written guided_backprop"),
        ("gradcam++", "for Grad-CAM++, use grad_cam_plus_plus"),
        ("salency", ""),  # a slip in what is here: spelling says it
        ("zarquon", ""),
    ],
)
def test_answers(asked: str, told: str) -> None:
    found = answer(asked, THINGS, {name: name for name in listing()}, "{}")
    assert found.startswith(told) and bool(found) == bool(told)


def test_plural_and_singular_may_mean_different_things() -> None:
    options = {name: f"--{name}" for name in ("of", "classes")}
    assert hint("label", OPTIONS, options) == "for what is explained, use --of"
    assert hint("labels", OPTIONS, options) == "for the names of the classes, use --classes"
    assert hint("n_steps", OPTIONS, options) == "there is none for the number of steps here"
    assert hint("off", OPTIONS, options) == "nearest: 'of'"
    assert plain("Grad-CAM++s") == plain("gradcampp")


def refused(capsys: Capture, *arguments: str) -> str:
    assert run(arguments) == 2
    return capsys.readouterr().err


def test_the_command_line_answers_commands_and_options(capsys: Capture) -> None:
    digit = str(digits()[3])
    assert "use convscope maps, convscope activation or convscope.tap(...) in Python" in refused(capsys, "activations")
    assert "for what is explained, use --of" in refused(capsys, "grad_cam", digit, "--target", "3")
    assert "PICTURE stands without one: convscope grad-cam PICTURE" in refused(capsys, "grad_cam", "--image", digit)
    assert "NETWORK stands without one" in refused(capsys, "train", "--model", "lenet5")
    assert "for the method, use --methods" in refused(capsys, "check", digit, "--explainer", "x")
    assert "for Grad-CAM, use 'grad_cam'" in refused(capsys, "check", digit, "--net", "lenet5", "--methods", "gradcam")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[defaults]\ntarget_layer = "x"', "for the layer, use 'layer'"),
        ('[defaults.heatmap]\nof = "x"', "use 'grad_cam', 'integrated_gradients' or 'occlusion'"),
        ('[networks.x]\nload = "lenet5"\ncheckpoint = "x"', "for the network's weights, use 'weights'"),
        ('model = "lenet5"', "for the network, use 'net'"),
    ],
)
def test_a_configuration_is_answered(
    text: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "convscope.toml").write_text(text)
    assert told in refused(capsys, "saliency", str(digits()[3]))


def test_python_answers_methods_options_and_names() -> None:
    net, pixels = load("lenet5"), torch.zeros(1, 1, 28, 28)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"method": "gradcam"}, "for Grad-CAM, use 'grad_cam'"),
        ({"method": "lime"}, "no LIME yet; 'rise' and 'occlusion'"),
        ({"method": "sanity"}, "for whether a map can be believed, use convscope check in a shell"),
        ({"method": "grad_cam", "target_layer": "x"}, "for the layer, use layer="),
        ({"method": "grad_cam", "target": 3}, "for what is explained, use of="),
    ]
    for options, told in cases:
        with pytest.raises(OptionError) as error:
            convscope.attribute(net, pixels, **options)
        assert told in str(error.value)
    with pytest.raises(OptionError, match="load has no option 'pretrained'; for the network's weights, use weights="):
        load("lenet5", pretrained=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(AttributeError, match=r"use convscope\.explain\(net, picture, 'grad_cam'\)"):
        convscope.GradCAM  # noqa: B018
    with pytest.raises(AttributeError, match=r"it is written convscope train in a shell"):
        convscope.Train  # noqa: B018
    assert in_python()["maps"] == "convscope.maps(...)"


def test_answers_import_no_torch() -> None:
    code = (
        "import sys, convscope; from convscope.cli import run; run(['heatmap']); "
        "run(['grad-cam', 'x', '--target', '3']); hasattr(convscope, 'GradCAM'); "
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "grad-cam" in ended.stderr and "--of" in ended.stderr, ended.stderr
