"""NYU Depth V2: rooms as colour and depth (HHA) images, 10 classes.

python -m c3r_jax.data.prepare nyud2 --source DIR --out data
python train.py --config=configs/nyud2.py --workdir=runs/nyud2
python eval.py --workdir=runs/nyud2 --protocol=nyud2
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of NYU Depth V2."""
    config = benchmark.get_config("nyud2", train_size=795, batch_size=640, epochs=100, patience=5, learning_rate=1e-4)
    benchmark.use_images(config)
    config.optimizer.weight_decay = 1e-5
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.3, 10
    config.eval.protocols = ("nyud2",)
    return config
