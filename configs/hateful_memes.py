"""Hateful Memes: pictures with text on them, hateful or not; selected and reported by AUROC.

python -m c3r_jax.data.prepare hateful_memes --source DIR --out data
python train.py --config=configs/hateful_memes.py --workdir=runs/hateful_memes
python eval.py --workdir=runs/hateful_memes
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of Hateful Memes."""
    config = benchmark.get_config(
        "hateful_memes", train_size=8500, batch_size=640, epochs=100, patience=10, learning_rate=5e-5
    )
    benchmark.use_images(config)
    benchmark.use_texts(config, tokens=64)
    config.train.select_by = "auroc"
    config.eval.protocols = ("official", "qmf")
    return config
