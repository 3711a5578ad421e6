"""What others call what is here, and what is not here: an unknown name is answered by what was wanted.

One table for methods, views and commands, one for options. A name that is not in them is answered by its spelling.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .errors import nearest

_ALIKE = 0.8
"""How alike two spellings must be (difflib) for one to be a slip of the other."""


@dataclass(frozen=True)
class Wish:
    """What somebody may want: what gives it here, and the names that others have for it.

    What is `missing` has beside it, in `here`, what answers a similar question.
    """

    wanted: str
    here: tuple[str, ...]
    names: str
    missing: bool = False

    def answer(self, written: Mapping[str, str], elsewhere: str) -> str:
        """Say what to use, of what is there."""
        there = [text for name in self.here if (text := written.get(name) or elsewhere.format(name))]
        if self.missing:
            verb = "answer" if len(there) > 1 else "answers"
            similar = f"; {_listed(there, 'and')} {verb} a similar question" if there else ""
            return f"convscope has no {self.wanted} yet{similar}"
        return f"for {self.wanted}, use {_listed(there, 'or')}" if there else ""


THINGS = (
    # Study many pictures
    Wish(
        "what channels do to the answer",
        ("effects",),
        "channel_ablation unit_ablation ablate_channels zero_ablation mean_ablation resample_ablation channel_effects "
        "unit_effects causal_effects channel_importance unit_importance filter_importance",
    ),
    Wish(
        "what units answer to each class",
        ("activity",),
        "selectivity class_selectivity class_activity activations_per_class mean_activation unit_activity",
    ),
    # Explain a picture
    Wish(
        "a map of what an answer depends on",
        ("grad_cam", "integrated_gradients", "occlusion"),
        "explainer explanation heat_map heat attribution attribute attributor attribute_map importance "
        "importance_map relevance relevance_map interpret interpretation why analyze analyse analyzer create_analyzer "
        "xai captum pytorch_grad_cam torchcam class_activation localize localization_map attention attention_map "
        "pixel_attribution overlay sensitivity_map what where evidence",
    ),
    Wish("Grad-CAM", ("grad_cam",), "gradcam layer_grad_cam GradCAMElementWise grad_class_activation_map"),
    Wish("Grad-CAM++", ("grad_cam_plus_plus",), "gradcam++ grad_cam_pp GradCAMpp SmoothGradCAMpp cam_pp"),
    Wish("CAM", ("cam", "grad_cam"), "class_activation_map class_activation_mapping"),
    Wish("HiResCAM", ("hires_cam",), "high_res_cam layer_gradient_x_activation"),
    Wish("Score-CAM", ("score_cam",), "faster_score_cam SSCAM ISCAM"),
    Wish("Eigen-CAM", ("eigen_cam",), "pca_cam eigen EigenGradCAM SegEigenCAM"),
    Wish("Ablation-CAM", ("ablation_cam",), "ablation feature_ablation layer_feature_ablation neuron_feature_ablation"),
    Wish(
        "vanilla gradients",
        ("saliency", "gradient"),
        "vanilla vanilla_gradients vanilla_grad backprop "
        "calculate_gradients sensitivity input_gradient neuron_gradient salience saliency_map simonyan grad",
    ),
    Wish(
        "gradient times input",
        ("gradient_x_input",),
        "input_x_gradient InputXGradient gradients_inputs grad_input gradient_input linear_approx gradient_times_input",
    ),
    Wish(
        "guided backpropagation",
        ("guided_backprop",),
        "guided guided_bp guided_backpropagation guided_relu "
        "GuidedBackpropReLUModel neuron_guided_backprop GuidedBackpropReLU",
    ),
    Wish("guided Grad-CAM", ("guided_grad_cam",), "guided_gradcam guided_cam"),
    Wish(
        "the deconvnet",
        ("deconvnet", "project"),
        "deconv deconvolution neuron_deconvolution zeiler zeiler_fergus zf unpooling deconvolutional_network",
    ),
    Wish("SmoothGrad", ("smooth_grad",), "noise_tunnel VarGrad SquareGrad SmoothGradSquared smoothgrad_sq smooth"),
    Wish(
        "integrated gradients",
        ("integrated_gradients",),
        "ig IntegratedGradient integrated layer_integrated_gradients "
        "neuron_integrated_gradients path_integrated axiomatic expected_gradients GradientShap GuidedIG BlurIG "
        "path_attribution",
    ),
    Wish(
        "occlusion",
        ("occlusion", "occlusion_study"),
        "occlude occlusion_sensitivity perturb perturbation perturbation_map sliding_window krypton hide cover",
    ),
    Wish("RISE", ("rise",), "randomized_input_sampling random_masks"),
    Wish(
        "extremal perturbation",
        ("extremal",),
        "extremal_perturbation meaningful_perturbation torchray mask_optimization",
    ),
    Wish(
        "methods side by side",
        ("compare",),
        "comparison versus vs diff all side_by_side multiple visualize_image_attr_multiple plot_attributions",
    ),
    # Look inside
    Wish(
        "what a layer holds",
        ("maps", "activation", "tap"),
        "activations feature_map features feature get_activations "
        "display_activations layer_activation layer_output outputs intermediate hook hooks embedding embeddings "
        "create_feature_extractor feature_extractor get_graph_node_names extract_activations extract keract "
        "channels response responses nnsight inspect look",
    ),
    Wish(
        "the strongest channels of a picture",
        ("project", "maps"),
        "top top_k top_channels strongest strongest_activations top_activations max_activations top_9 top9",
    ),
    Wish("the first layer's filters", ("filters",), "filter kernel kernels weights conv1 first_layer"),
    Wish(
        "gradients at hidden layers",
        ("hidden_gradients",),
        "layer_gradients hidden gradients_at_layers InternalInfluence internal_influence layer_gradient",
    ),
    Wish(
        "the network's layers and their receptive fields",
        ("layers",),
        "layer summary structure architecture "
        "receptive_field receptive_fields rf modules get_model_layers model_summary torchinfo torchsummary shapes "
        "named_modules parameters",
    ),
    Wish(
        "a mask of the object",
        ("segment",),
        "segmentation mask cutout cut_out cut crop grabcut graphcut graph_cut "
        "foreground background_removal cartoon silhouette bounding_box",
    ),
    Wish(
        "a picture made again from its features",
        ("invert", "reconstruct"),
        "inversion feature_inversion mahendran inverted_representation reconstruction inverse decode",
    ),
    # Make pictures
    Wish(
        "pictures that excite a unit most",
        ("maximize", "class_model", "filters_by_ascent"),
        "feature_vis feature_visualization feature_visualisation render_vis render lucid lucent "
        "activation_maximization activation_maximisation actmax am gradient_ascent GradientAscent optimize optvis maco "
        "horama neuron channel unit direction diversity objective deepvis maximise synthesize synthesise import_model "
        "param cppn visualize_layer",
    ),
    Wish(
        "a picture of a class",
        ("class_model", "maximize"),
        "class class_visualization class_specific_sample generate_class class_image class_models prototype",
    ),
    Wish("DeepDream", ("dream",), "deepdream deep_dream inceptionism hallucinate"),
    Wish(
        "style transfer",
        ("style", "stylize", "train-style"),
        "style_transfer neural_style nst gatys fast_neural_style paint painting artistic",
    ),
    Wish(
        "a drawing",
        ("grad_cam", "maps", "maximize"),
        "visualize visualise visualization visualisation vis viz plot draw display "
        "figure picture image imshow visualize_image_attr show_cam_on_image overlay_mask imgify view run start",
    ),
    # Networks, data, checks
    Wish(
        "the classes that a network finds in a picture",
        ("predict",),
        "classify classification inference infer "
        "prediction predictions label top1 top_1 top_5 top5 forward detect probabilities who is",
    ),
    Wish(
        "how right a network is",
        ("predict",),
        "evaluate eval accuracy test val validate validation confusion confusion_matrix calibration wrong mistakes "
        "errors misclassified top_1_accuracy",
    ),
    Wish(
        "the networks at hand",
        ("nets", "list_networks"),
        "models model list ls networks network zoo list_models available net catalogue",
    ),
    Wish("the methods there are", ("list_methods", "compare"), "methods method_list available_methods"),
    Wish(
        "whether a map can be believed",
        ("check",),
        "sanity sanity_check sanity_checks randomization "
        "model_parameter_randomization MPRT SmoothMPRT EfficientMPRT RandomLogit RandomCAM faithfulness fidelity "
        "infidelity sensitivity_max MaxSensitivity MuFidelity deletion insertion pixel_flipping ROAD pointing_game "
        "PointingGame robustness metrics metric quantus benchmark evaluate_explanation localise localize_boxes "
        "localization AverageStability FaithfulnessCorrelation RelevanceRankAccuracy CamMultImageConfidenceChange "
        "verify",
    ),
    Wish("training", ("train", "train-style"), "fit learn finetune fine_tune training trainer"),
    Wish("how a network learnt", ("history",), "epochs checkpoints snapshots log progress learning_curve"),
    Wish(
        "how a drawing was made",
        ("show", "remake", "read_recipe"),
        "recipe provenance metadata info about redo rerun manifest exif",
    ),
    Wish(
        "the objective",
        ("as_objective",),
        "target ClassifierOutputTarget BinaryClassifierOutputTarget SemanticSegmentationTarget category ask",
    ),
    Wish(
        "a page to hand out",
        ("report", "demo"),
        "html gallery page example examples sample tutorial notebook",
    ),
    Wish("the explorer", ("serve",), "dashboard ui gui app web server insights AttributionVisualizer microscope"),
    Wish("many pictures at once", ("explain", "explain_many"), "batch bulk folder dataset directory many"),
    Wish("a film", ("dream", "grad_cam"), "film video gif animate animation movie zoom"),
    Wish("help", ("demo", "nets", "grad_cam"), "usage man commands guide quickstart hello"),
    # What is not here
    Wish("LIME", ("rise", "occlusion"), "lime lime_image LimeBase superpixel superpixels", missing=True),
    Wish(
        "SHAP",
        ("occlusion", "rise", "integrated_gradients"),
        "shap kernel_shap KernelShap deep_shap DeepLiftShap shapley ShapleyValues shapley_value_sampling ShapleyCAM",
        missing=True,
    ),
    Wish("DeepLIFT", ("integrated_gradients", "gradient_x_input"), "deeplift deep_lift layer_deep_lift", missing=True),
    Wish(
        "LRP",
        ("gradient_x_input", "guided_backprop"),
        "lrp layer_lrp layerwise_relevance_propagation relprop zennit "
        "composite canonizer EpsilonPlus EpsilonGammaBox LRPEpsilon alpha_beta PatternNet PatternAttribution "
        "excitation_backprop contrastive_excitation_backprop deep_taylor",
        missing=True,
    ),
    Wish("FullGrad", ("grad_cam", "gradient_x_input"), "full_grad fullgrad", missing=True),
    Wish(
        "CAM of this kind",
        ("grad_cam", "layer_cam", "eigen_cam"),
        "KPCA_CAM FEM FinerCAM RefineCAM LeGrad RelevanceCAM Poly_CAM",
        missing=True,
    ),
    Wish("XRAI", ("integrated_gradients", "extremal"), "xrai", missing=True),
    Wish(
        "attribution by sensitivity indices",
        ("rise", "occlusion"),
        "sobol SobolAttributionMethod hsic HsicAttributionMethod feature_permutation",
        missing=True,
    ),
    Wish(
        "layer conductance",
        ("hidden_gradients", "grad_cam"),
        "conductance layer_conductance neuron_conductance",
        missing=True,
    ),
    Wish(
        "concepts",
        ("maximize", "project"),
        "concept concepts tcav cav craft nmf dff DeepFeatureFactorization "
        "run_dff_on_image crp CondAttribution relmax ForGrad ChannelReducer",
        missing=True,
    ),
    Wish(
        "activation atlas or caricature",
        ("maximize", "filters_by_ascent"),
        "atlas activation_atlas activation_grid caricature summit",
        missing=True,
    ),
    Wish(
        "a channel's strongest pictures in a data set",
        ("scan", "patches", "project", "maximize"),
        "top_images top_patches find_max_acts crop_max_patches do_maxes max_activating_images dataset_examples "
        "strongest_pictures retrieve neighbours nearest_neighbors feature_visualization_dataset similar",
    ),
    Wish(
        "what is wrong with a network: dead or twin units, overfitting, shortcuts",
        ("diagnose",),
        "dead dead_filters dead_neurons dead_units dead_relu diagnosis diagnostics doctor duplicates prune pruning "
        "health lint debug overfit overfitting memorised memorization shortcut shortcuts "
        "spurious aliasing checkerboard",
    ),
    Wish(
        "curves of invariance",
        ("invariance",),
        "tuning_curve tuning_curves stability equivariance rotate translate",
    ),
    Wish(
        "linear probes of layers",
        ("probe",),
        "probing probes linear_probe linear_probes linear_probing linear_classifier linear_evaluation svm",
    ),
    Wish(
        "pretrained features at few pictures",
        ("transfer",),
        "few_shot few_shots transfer_learning pretrained from_scratch",
    ),
    Wish(
        "when layers settle in a training",
        ("evolution_study", "evolution"),
        "settling convergence layer_convergence training_dynamics cka svcca representation_similarity",
    ),
    Wish("layers removed or resized", ("ablate",), "ablation_study ablate_layers remove_layers lesion lesions"),
    Wish(
        "map of units by likeness",
        ("maps", "filters_by_ascent"),
        "tsne t_sne umap pca cluster clusters clustering",
        missing=True,
    ),
    Wish(
        "adversarial pictures",
        ("accentuate", "maximize"),
        "adversarial attack fool fgsm pgd counterfactual MinParamPerturbation",
        missing=True,
    ),
    Wish(
        "influence of training pictures", ("train", "history"), "tracin TracInCP influence data_influence", missing=True
    ),
    Wish("export of networks", ("layers", "load"), "convert save_model to_onnx quantize", missing=True),
)
"""What methods, views and commands are called elsewhere."""


OPTIONS = (
    Wish(
        "what is explained",
        ("of",),
        "target class class_idx class_index class_id target_class category "
        "target_category label objective neuron unit expected_class_idx neuron_selector output_index index score goal "
        "ground_truth predict logit for",
    ),
    Wish(
        "the layer",
        ("layer", "layers", "style_layers", "content_layer"),
        "l target_layer target_layers layer_name saliency_layer module block conv "
        "push_layer at_layer node return_nodes stage",
    ),
    Wish("the method", ("method", "methods"), "algorithm explainer attributor attribution technique"),
    Wish(
        "the channels", ("channels", "of", "top"), "channel filter_idxs filter filter_idx push_channel indices feature"
    ),
    Wish("how many are shown", ("top", "limit", "k"), "k n topk top_k num count max number how_many"),
    Wish("the network", ("net", "load"), "model network arch architecture backbone body nn cnn module_name"),
    Wish(
        "the network's weights",
        ("weights",),
        "checkpoint ckpt state_dict pretrained weights_file model_path "
        "weights_path resume pth load_weights restore file",
    ),
    Wish(
        "the names of the classes",
        ("classes",),
        "class_names labels label_names names categories label_file idx_to_class id2label vocab imagenet_labels",
    ),
    Wish(
        "how pixels are normalised",
        ("mean", "std"),
        "normalize normalise normalization preprocess preprocessing "
        "preprocess_input transform_mean sd sigma_channel variance",
    ),
    Wish("what the outputs mean", ("head",), "activation_function softmax sigmoid logits multilabel"),
    Wish("the device", ("device",), "gpu cuda use_cuda use_gpu cpu accelerator mps gpus"),
    Wish(
        "the output",
        ("out", "csv"),
        "o output output_dir outdir out_dir save save_path save_dir dest destination output_file "
        "output_path filename to save_image image_out outfile project write",
    ),
    Wish(
        "the raw numbers", ("save_values",), "save_npy npy npz numpy raw values save_numbers save_raw dump return_numpy"
    ),
    Wish(
        "the side of the input",
        ("size",),
        "imgsz image_size img_size input_size input_shape resolution resize height width hw "
        "side dim fixed_image_size seed_input",
    ),
    Wish("how pictures fit", ("fit",), "crop center_crop pad padding letterbox aspect"),
    Wish(
        "the number of steps",
        ("steps", "epochs", "samples", "masks"),
        "n_steps num_steps iterations num_iterations iters nb_steps max_iter "
        "n_iter num_iter niter thresholds max_steps epoch_count num_iter_per_octave",
    ),
    Wish(
        "the number of samples",
        ("samples", "masks"),
        "n_samples nt_samples nsamples num_samples smooth_samples "
        "num_masks n_masks nb_samples mask_count perturbations",
    ),
    Wish("the step size", ("rate",), "lr learning_rate step_size eta alpha_lr"),
    Wish("the noise", ("noise",), "stdevs stdev stdev_spread noise_level sigma smooth_noise std_noise"),
    Wish(
        "what replaces pixels",
        ("baseline",),
        "baselines background reference mask_value occlusion_value fill_value "
        "replace replacement grey_value baseline_value",
    ),
    Wish(
        "the square that is hidden",
        ("patch",),
        "window sliding_window_shapes patch_size mask_size kernel kernel_size "
        "window_size occlusion_size square block_size",
    ),
    Wish("the step of the square", ("stride",), "strides step_pixels"),
    Wish("the cells of the masks", ("cells",), "num_cells grid_size grid_cells mask_cells"),
    Wish("the part of the picture that is kept", ("keep", "area"), "p1 probability_kept preservation areas preserve"),
    Wish(
        "the size of batches",
        ("batch",),
        "batch_size internal_batch_size perturbations_per_eval bs batchsize minibatch",
    ),
    Wish("the colours", ("cmap",), "colormap colourmap color_map colour_map palette colors colours"),
    Wish(
        "the map over the picture",
        ("overlay",),
        "alpha blend blended superimpose blended_heat_map image_weight opacity use_rgb heat_map_only",
    ),
    Wish(
        "one colour scale",
        ("shared_scale",),
        "scale vmin vmax normalize_maps same_scale clim percentiles outlier_perc clip_percentile",
    ),
    Wish(
        "random changes before every step",
        ("transform",),
        "transforms jitter rotate random_scale augmentation augment robustness random_rotate",
    ),
    Wish(
        "the numbers a picture is made of",
        ("parametrization", "preset"),
        "param parameterization fft decorrelate use_fft param_f space image_f",
    ),
    Wish("the optimizer", ("optimizer",), "optim solver optimiser_name"),
    Wish("the seed", ("seed", "net_seed"), "random_seed random_state rand_seed manual_seed rng"),
    Wish("the styles", ("style",), "style_image style_images style_img artwork painting style_picture"),
    Wish("the weights of the styles", ("style_mix",), "style_blend_weights blend_weights style_weights"),
    Wish("the preview", ("preview",), "save_iter print_iter save_every callback callbacks snapshot_file"),
    Wish("JSON", ("as_json", "json"), "format output_format machine_readable"),
    Wish("the bounding boxes", ("boxes",), "bbox bboxes bounding_boxes annotations coco voc gt"),
    Wish("whether the map follows the weights", ("check",), "sanity sanity_check verify"),
    Wish("the pictures to learn from", ("data",), "dataset train_dir data_dir data_path root folder image_folder"),
    Wish("the processes that load pictures", ("workers",), "num_workers jobs n_jobs threads nproc"),
    Wish("the recipe of the training", ("recipe",), "config configuration schedule hyperparameters"),
    Wish(
        "progress, which is shown by itself,",
        (),
        "verbose verbosity quiet silent show_progress progress tqdm debug v q",
    ),
    Wish("no question", ("yes",), "force assume_yes no_prompt overwrite y"),
)
"""What options and keys are called elsewhere."""

_PICTURES = (
    "image images image_path img image_paths picture pictures source input inputs input_image content content_image "
    "photo file_path x image_dir"
)
ARGUMENTS = {"picture": _PICTURES, "pictures": _PICTURES, "network": "net network model arch architecture backbone"}
"""What arguments, which stand without an option on the command line, are called elsewhere."""


def plain(name: str) -> str:
    """Return a name without what spellings differ in: case, dashes, underscores, spaces, plural."""
    return re.sub(r"[^0-9a-z]", "", name.casefold().replace("+", "p")).removesuffix("s")


def hint(asked: str, wishes: Iterable[Wish], written: Mapping[str, str]) -> str:
    """Say what was wanted by a name that does not exist, or else which are near."""
    return answer(asked, wishes, written) or f"nearest: {nearest(asked, written)}"


def answer(asked: str, wishes: Iterable[Wish], written: Mapping[str, str], elsewhere: str = "") -> str:
    """Say what was wanted by a name that does not exist, "" where it is not known.

    Args:
        asked: the name.
        wishes: THINGS or OPTIONS.
        written: what there is, by name, as it is to be written.
        elsewhere: how to write what there is only elsewhere, with {} for its name; "" leaves it out.
    """
    known = [(name, wish) for wish in wishes for name in wish.names.split()]
    others = {name: elsewhere.format(name) for wish in wishes for name in wish.here if elsewhere}
    own = {plain(name): text for name, text in (others | dict(written)).items()}
    word, names = plain(asked), [plain(name) for name, _ in known]
    if word not in names and word not in own:
        word = next(iter(difflib.get_close_matches(word, [*names, *own], 1, _ALIKE)), "")
        if word in own:
            return ""  # a slip in a name that is there is answered by its spelling
    # "labels" and "label" are not the same to all.
    meant = sorted((name.casefold() != asked.casefold(), k) for k, (name, _) in enumerate(known) if names[k] == word)
    found = [known[k][1] for _, k in meant]
    wanted = next((text for wish in found if (text := wish.answer(written, elsewhere))), "")
    if wanted or word in own:
        return wanted or f"it is written {own[word]}"
    return f"there is none for {found[0].wanted} here" if found else ""


def _listed(names: list[str], last: str) -> str:
    return f" {last} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
