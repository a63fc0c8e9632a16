"""What every sweep has; a study gives its cells."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Returns the base of a sweep; every leaf is read and can be set as ``--config.any.leaf=value``."""
    config = ConfigDict()
    config.seeds = 5
    config.baseline = "plain"  # the cell that others are compared with
    config.select_by = "validation_accuracy"  # among a cell's weights: validation_accuracy | validation_risk | oracle
    config.memory_mib = 2048  # for the runs of one chunk
    config.data = ConfigDict()
    config.data.worlds = ("confounded", "anticausal")  # structural models; also "null"
    config.data.num_modalities = 2
    config.data.positive_share = 0.5
    # Training rows (and those of validation and "same") take turns between environments with cues of these strengths,
    # relative to the model's; none: all as the model says.
    config.data.environments = ()
    config.data.num_train = 4000
    config.data.num_eval = 2000
    config.model = ConfigDict()
    config.model.hidden = (64,)
    config.model.dim = 16
    config.train = ConfigDict()
    config.train.steps = 500
    config.train.batch_size = 256
    config.train.learning_rate = 2e-3
    config.train.weight_decay = 1e-3
    # Configurations that are trained and evaluated as train.py and eval.py do, each with the study's fusions, rivals
    # and dropout, and C3R as it is in the configuration.
    config.experiments = ConfigDict()
    config.experiments.names = ()  # e.g. emoji_shift
    config.experiments.seeds = 1
    config.experiments.steps = 0  # 0: the configuration's own
    config.experiments.path = ""  # of prepared sets
    config.experiments.tuned = True  # False: of a cell's values the middle one alone, without selection
    config.cells = ConfigDict()
    return config
