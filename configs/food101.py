"""UPMC Food-101: pictures of dishes and the text of the recipes' pages, 101 classes.

python -m c3r_jax.data.prepare food101 --source DIR --out data
python train.py --config=configs/food101.py --workdir=runs/food101
python eval.py --workdir=runs/food101 --protocol=qmf
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of UPMC Food-101."""
    config = benchmark.get_config(
        "food101", train_size=62_000, batch_size=640, epochs=100, patience=10, learning_rate=1e-4
    )
    benchmark.use_images(config)
    benchmark.use_texts(config)
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.5, 5
    config.eval.protocols = ("official", "qmf")
    return config
