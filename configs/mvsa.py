"""MVSA-Single: tweets with a picture, 3 sentiments.

python -m c3r_jax.data.prepare mvsa --source DIR --out data
python train.py --config=configs/mvsa.py --workdir=runs/mvsa
python eval.py --workdir=runs/mvsa --protocol=qmf
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of MVSA-Single."""
    config = benchmark.get_config("mvsa", train_size=1555, batch_size=640, epochs=100, patience=10, learning_rate=5e-5)
    benchmark.use_images(config)
    benchmark.use_texts(config, tokens=64)
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.5, 2
    config.eval.protocols = ("official", "qmf")
    return config
