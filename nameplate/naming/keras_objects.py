"""What Keras has by name beside layers: losses, metrics, optimizers, schedules, callbacks, each with its arguments.

Strings only: a configuration is checked before Keras is imported, and what is not listed is not built without trust.
A test compares every table with the signatures of keras 3.15.

In a configuration an object is a name, `Huber` or `huber`, or a mapping with a name and arguments,
`{_target_: Huber, delta: 2}`. A name with dots is either Keras', `keras.losses.Huber`, or someone's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from nameplate.naming.names import did_you_mean, snake

TARGET = "_target_"
Tables = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class Kind:
    """The objects of one of Keras' modules; `classes` has the arguments of each, a required one with `!` at its end."""

    noun: str
    module: str
    classes: Tables
    short: Mapping[str, str] = field(default_factory=dict)  # other words of Keras
    refused: Mapping[str, str] = field(default_factory=dict)  # class -> why a configuration cannot have it
    trusted: Mapping[str, str] = field(default_factory=dict)  # class -> why it needs trust=[keras]
    offered: tuple[str, ...] = ()  # arguments that a run fills in
    sample: str = ""
    apart: str = ""  # key of the arguments, if they are not beside the name

    def find(self, name: str) -> str | None:
        """Return the class of a name in any of Keras' spellings (`MeanSquaredError`, `mean_squared_error`, `mse`)."""
        word = _folded(name.removeprefix(f"{self.module}."))
        known = {_folded(short): own for short, own in self.short.items()}
        known |= {_folded(own): own for own in (*self.classes, *self.refused, *self.trusted)}
        return known.get(word)

    def takes(self, value: Any) -> list[str]:
        """Return the arguments of the class that a value names; none of a class that is not Keras'."""
        own = self.keras_class(value)
        return [argument.rstrip("!") for argument in self.classes.get(own or "", ())]

    def keras_class(self, value: Any) -> str | None:
        """Return the class of Keras that a value names; None of someone's own, or of nothing."""
        target = target_of(value)
        return self.find(target) if target and is_keras(target, self) else None

    def problems(self, key: str, value: Any, *, trust: bool = False) -> Iterator[str]:
        """Yield what is wrong with a value of a configuration; `trust` if Keras as a whole is trusted.

        What is someone's own is checked once it may be imported.
        """
        target = target_of(value)
        if target is None:
            yield f"{key}: {_shown(value)}; {self._form(value)}"
            return
        if not is_keras(target, self):
            if not all(part.isidentifier() for part in target.split(".")):
                yield f"{key}: {target!r} is not a dotted name; e.g. my_package.my_module.mine"
            return
        own = self.find(target)
        if own is None:
            yield f"{key}: no {self.noun} is called {target!r}.{did_you_mean(target, self.words(target))} {self.all()}"
        elif own in self.refused:
            yield f"{key}: {own}: {self.refused[own]}"
        elif own in self.trusted:
            if not trust or not target.startswith("keras."):
                path = f"{self.module}.{own}"
                yield f"{key}: {own}: {self.trusted[own]}; to run it all the same: {TARGET}: {path} and trust=[keras]"
        else:
            yield from self._argument_problems(key, own, arguments_of(value))

    def all(self) -> str:
        """Return the sentence that lists the classes, and how to name one of one's own."""
        mine = f"{self.noun}.{TARGET}=my_package.Mine" if self.apart else f"{{{TARGET}: my_package.Mine}}"
        return f"There are {', '.join(self.classes)}; a class of yours is {mine}"

    def words(self, like: str) -> list[str]:
        """Return the names that there are in the spelling of a word: classes, or words with underscores."""
        if like.rpartition(".")[2][:1].isupper():
            return list(self.classes)
        return [*self.short, *map(snake, self.classes)]

    def _form(self, value: Any) -> str:
        if isinstance(value, Mapping) and isinstance(value.get("name"), str) and self.find(value["name"]):
            rest = "".join(f", {name}: {each}" for name, each in value.items() if name != "name")
            return f"the class is its {TARGET}: {{{TARGET}: {value['name']}{rest}}}"
        return f"write a name, or a name with arguments: {self.sample}"

    def _argument_problems(self, key: str, own: str, arguments: Mapping[str, Any]) -> Iterator[str]:
        takes = [argument.rstrip("!") for argument in self.classes[own]]
        for name, value in arguments.items():
            if name not in takes:
                yield f"{key}: {own} takes no {name!r}.{did_you_mean(name, takes)} It takes {', '.join(takes)}"
            elif inner := _object_in(value):
                yield f"{key}.{name}: {_shown(inner)} would become an object; without trust only plain values may"
        needed = [argument[:-1] for argument in self.classes[own] if argument.endswith("!")]
        missing = [name for name in needed if name not in arguments and name not in self.offered]
        if missing:
            example = f"{{{TARGET}: {own}, {missing[0]}: ...}}"
            if self.apart:
                example = f"'{self.apart}={{{missing[0]}: ...}}'"
            yield f"{key}: {own} needs {', '.join(missing)}; e.g. {example}"


def target_of(value: Any) -> str | None:
    """Return what a value of a configuration names; None if it names nothing."""
    target = value.get(TARGET) if isinstance(value, Mapping) else value
    return target if isinstance(target, str) and target else None


def arguments_of(value: Any) -> dict[str, Any]:
    """Return the arguments that a value of a configuration has beside its name."""
    return {str(name): each for name, each in value.items() if name != TARGET} if isinstance(value, Mapping) else {}


def is_keras(target: str, kind: Kind) -> bool:
    """Say whether a name is one of Keras', or meant to be: it has no dots, or those of the kind's module."""
    return "." not in target or (target.rpartition(".")[0] == kind.module)


def _object_in(value: Any) -> Any:
    """Return the first mapping in a value, from which Keras could make an object; None if there is none."""
    if isinstance(value, Mapping):
        return value
    inside = list(map(_object_in, value)) if isinstance(value, list | tuple) else []
    return next((each for each in inside if each is not None), None)


def _folded(name: str) -> str:
    return name.replace("_", "").casefold()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _table(text: str, *common: str) -> Tables:
    rows = (line.split() for line in text.strip().splitlines())
    return {name: (*arguments, *common) for name, *arguments in rows}


_MEANS = {"mse": "MeanSquaredError", "mae": "MeanAbsoluteError", "mape": "MeanAbsolutePercentageError"}
_MEANS |= {"msle": "MeanSquaredLogarithmicError"}
_BASE = "a base class, which computes nothing; name one that derives from it"

LOSSES = Kind(
    "loss",
    "keras.losses",
    _table(
        """
        BinaryCrossentropy from_logits label_smoothing axis
        BinaryFocalCrossentropy apply_class_balancing alpha gamma from_logits label_smoothing axis
        CTC
        CategoricalCrossentropy from_logits label_smoothing axis
        CategoricalFocalCrossentropy alpha gamma from_logits label_smoothing axis
        CategoricalGeneralizedCrossEntropy q
        CategoricalHinge
        Circle gamma margin remove_diagonal
        CosineSimilarity axis
        Dice axis
        Hinge
        Huber delta
        KLDivergence
        LogCosh
        MeanAbsoluteError
        MeanAbsolutePercentageError
        MeanSquaredError
        MeanSquaredLogarithmicError
        Poisson
        SparseCategoricalCrossentropy from_logits ignore_class axis
        SquaredHinge
        Tversky alpha beta axis
        """,
        *("reduction", "name", "dtype"),
    ),
    short=_MEANS | {"bce": "BinaryCrossentropy", "kld": "KLDivergence"},
    refused={"Loss": _BASE},
    sample="objective.loss=huber or 'objective.loss={_target_: Huber, delta: 2}'",
)

METRICS = Kind(
    "metric",
    "keras.metrics",
    _table(
        """
        AUC num_thresholds curve summation_method thresholds multi_label num_labels label_weights from_logits
        Accuracy
        BinaryAccuracy threshold
        BinaryCrossentropy from_logits label_smoothing
        BinaryIoU target_class_ids threshold
        CategoricalAccuracy
        CategoricalCrossentropy from_logits label_smoothing axis
        CategoricalHinge
        ConcordanceCorrelation axis
        CosineSimilarity axis
        F1Score average threshold
        FBetaScore average beta threshold
        FalseNegatives thresholds
        FalsePositives thresholds
        Hinge
        IoU num_classes! target_class_ids! ignore_class sparse_y_true sparse_y_pred axis
        KLDivergence
        LogCoshError
        MeanAbsoluteError
        MeanAbsolutePercentageError
        MeanIoU num_classes! ignore_class sparse_y_true sparse_y_pred axis
        MeanSquaredError
        MeanSquaredLogarithmicError
        OneHotIoU num_classes! target_class_ids! ignore_class sparse_y_pred axis
        OneHotMeanIoU num_classes! ignore_class sparse_y_pred axis
        PearsonCorrelation axis
        Poisson
        Precision thresholds top_k class_id
        PrecisionAtRecall recall! num_thresholds class_id
        R2Score class_aggregation num_regressors
        Recall thresholds top_k class_id
        RecallAtPrecision precision! num_thresholds class_id
        RootMeanSquaredError
        SensitivityAtSpecificity specificity! num_thresholds class_id
        SparseCategoricalAccuracy
        SparseCategoricalCrossentropy from_logits ignore_class axis
        SparseTopKCategoricalAccuracy k from_sorted_ids
        SpecificityAtSensitivity sensitivity! num_thresholds class_id
        SquaredHinge
        TopKCategoricalAccuracy k
        TrueNegatives thresholds
        TruePositives thresholds
        """,
        *("name", "dtype"),
    ),
    short=_MEANS | {"bce": "BinaryCrossentropy", "kld": "KLDivergence", "acc": "Accuracy", "logcosh": "LogCoshError"},
    refused={
        "Metric": _BASE,
        "Mean": "it averages one value, and does not compare targets with outputs",
        "Sum": "it adds up one value, and does not compare targets with outputs",
        "MeanMetricWrapper": "it needs a function; name the function itself, {_target_: my_package.function}",
    },
    sample="objective.metrics=[auc] or 'objective.metrics=[{_target_: AUC, curve: PR}]'",
)

OPTIMIZERS = Kind(
    "optimizer",
    "keras.optimizers",
    _table(
        """
        Adadelta rho epsilon
        Adafactor beta_2_decay epsilon_1 epsilon_2 clip_threshold relative_step
        Adagrad initial_accumulator_value epsilon
        Adam beta_1 beta_2 epsilon amsgrad
        AdamW beta_1 beta_2 epsilon amsgrad
        Adamax beta_1 beta_2 epsilon
        Ftrl learning_rate_power initial_accumulator_value l1_regularization_strength l2_regularization_strength l2_shrinkage_regularization_strength beta
        Lamb beta_1 beta_2 epsilon
        Lion beta_1 beta_2
        Muon adam_beta_1 adam_beta_2 adam_weight_decay epsilon exclude_layers exclude_embeddings muon_a muon_b muon_c adam_lr_ratio momentum ns_steps nesterov rms_rate
        Nadam beta_1 beta_2 epsilon
        RMSprop rho momentum epsilon centered
        SGD momentum nesterov
        ScheduleFreeAdamW beta_1 beta_2 epsilon warmup_steps
        """,  # noqa: E501  a class a line
        *("learning_rate", "weight_decay", "clipnorm", "clipvalue", "global_clipnorm", "use_ema", "ema_momentum"),
        *("ema_overwrite_frequency", "loss_scale_factor", "gradient_accumulation_steps", "name"),
    ),
    refused={
        "Optimizer": _BASE,
        "LossScaleOptimizer": "fit.precision=mixed_float16 puts it around any optimizer",
        "MultiOptimizer": "optimizer.rates gives layers learning rates of their own",
        "OptimizerMap": "optimizer.rates gives layers learning rates of their own",
    },
    offered=("learning_rate",),
    sample="optimizer=custom optimizer._target_=Nadam 'optimizer.arguments={beta_1: 0.8}'",
    apart="optimizer.arguments",
)

SCHEDULES = Kind(
    "schedule",
    "keras.optimizers.schedules",
    _table(
        """
        CosineDecay initial_learning_rate! decay_steps! alpha warmup_target warmup_steps
        CosineDecayRestarts initial_learning_rate! first_decay_steps! t_mul m_mul alpha
        ExponentialDecay initial_learning_rate! decay_steps! decay_rate! staircase
        InverseTimeDecay initial_learning_rate! decay_steps! decay_rate! staircase
        PiecewiseConstantDecay boundaries! values!
        PolynomialDecay initial_learning_rate! decay_steps! end_learning_rate power cycle
        """,
        "name",
    ),
    refused={"LearningRateSchedule": _BASE},
    offered=("initial_learning_rate", "decay_steps"),
    sample="schedule=custom schedule._target_=CosineDecayRestarts 'schedule.arguments={first_decay_steps: 100}'",
    apart="schedule.arguments",
)

CALLBACKS = Kind(
    "callback",
    "keras.callbacks",
    _table(
        """
        CSVLogger filename! separator append
        EarlyStopping monitor min_delta patience verbose mode baseline restore_best_weights start_from_epoch
        ModelCheckpoint filepath! monitor verbose save_best_only save_weights_only mode save_freq initial_value_threshold
        ReduceLROnPlateau monitor factor patience verbose mode min_delta cooldown min_lr
        TerminateOnNaN raise_error
        """  # noqa: E501  a class a line
    ),
    refused={
        "Callback": _BASE,
        "CallbackList": "a run makes the list; name each callback in it",
        "History": "a run keeps the history; its report has it, and metrics.jsonl",
        "ProgbarLogger": "a run shows its progress itself",
        "LambdaCallback": "it is made of functions, and a configuration has none; name a callback of yours",
        "LearningRateScheduler": "it needs a function; schedule=custom takes a schedule of Keras' or yours",
        "SwapEMAWeights": "optimizer.ema_momentum=0.999 validates and saves the moving average",
        "BackupAndRestore": "a run saves and resumes by itself; checkpoint.every_steps says how often",
    },
    trusted={
        "OrbaxCheckpoint": "it writes wherever its directory says, and imports another package",
        "RemoteMonitor": "it sends what is measured to another machine",
        "TensorBoard": "it writes wherever its log_dir says; log.tensorboard=true writes into the run",
    },
    sample="'callbacks={stop: {_target_: EarlyStopping, patience: 3}}'",
)
CALLBACK_PATHS = {"CSVLogger": "filename", "ModelCheckpoint": "filepath"}  # what they write, inside the run's directory
OBSERVING = ("CSVLogger", "EarlyStopping", "ModelCheckpoint", "TerminateOnNaN")  # callbacks that change no step

_SIZE = "images keep their size; data.height and data.width set it"
_EVERY = "it changes every image in the same way, in evaluation too; that is a layer for the model"
_TARGETS = "it changes targets too, and an augmentation has images alone"
_INNER = "Keras makes up the names of its inner layers, so a run could not resume what they draw"
AUGMENTATIONS = Kind(
    "augmentation",
    "keras.layers",
    _table(
        """
        RandomBrightness factor! value_range seed
        RandomColorDegeneration factor! value_range data_format seed
        RandomColorJitter value_range brightness_factor contrast_factor saturation_factor hue_factor seed data_format
        RandomContrast factor! value_range seed
        RandomElasticTransform factor scale interpolation fill_mode fill_value value_range seed data_format
        RandomErasing factor scale fill_value value_range seed data_format
        RandomFlip mode seed data_format
        RandomGaussianBlur factor kernel_size sigma value_range data_format seed
        RandomGrayscale factor data_format seed
        RandomHue factor! value_range data_format seed
        RandomInvert factor value_range seed data_format
        RandomPerspective factor scale interpolation fill_value seed data_format
        RandomPosterization factor! value_range data_format seed
        RandomRotation factor! fill_mode interpolation seed fill_value data_format
        RandomSaturation factor! value_range data_format seed
        RandomSharpness factor! value_range data_format seed
        RandomShear x_factor y_factor interpolation fill_mode fill_value data_format seed
        RandomTranslation height_factor! width_factor! fill_mode interpolation seed fill_value data_format
        RandomZoom height_factor! width_factor fill_mode interpolation seed fill_value data_format
        Solarization addition_factor threshold_factor value_range seed
        """
    ),
    refused=dict.fromkeys(["CenterCrop", "RandomCrop", "Resizing"], _SIZE)
    | dict.fromkeys(["AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Equalization"], _EVERY)
    | dict.fromkeys(["CutMix", "MaxNumBoundingBoxes", "MixUp"], _TARGETS)
    | dict.fromkeys(["AugMix", "RandAugment"], _INNER),
    sample="'data.augment=[flip, {_target_: RandomErasing, factor: 0.5}]'",
)
