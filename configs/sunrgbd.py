"""SUN RGB-D: rooms as colour and depth (HHA) images, 19 classes.

python -m c3r_jax.data.prepare sunrgbd --source DIR --out data
python train.py --config=configs/sunrgbd.py --workdir=runs/sunrgbd
python eval.py --workdir=runs/sunrgbd --protocol=nyud2
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of SUN RGB-D."""
    config = benchmark.get_config(
        "sunrgbd", train_size=4845, batch_size=640, epochs=100, patience=5, learning_rate=1e-4
    )
    benchmark.use_images(config)
    config.optimizer.weight_decay = 1e-5
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.3, 10
    config.eval.protocols = ("nyud2",)
    return config
