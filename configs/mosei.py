"""CMU-MOSEI, aligned: audio, text and vision features of opinions; sentiment from -3 to 3.

python -m c3r_jax.data.prepare mosei --source DIR --out data
python train.py --config=configs/mosei.py --workdir=runs/mosei
python eval.py --workdir=runs/mosei
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of CMU-MOSEI."""
    config = benchmark.get_config(
        "mosei", train_size=16_326, batch_size=256, epochs=50, patience=10, learning_rate=1e-3
    )
    config.task = "regression"
    config.train.select_by = "mean_mae"
    config.model.dim = 32
    config.model.sequence.patch = 5
    config.eval.protocols = ("gaussian",)
    return config
