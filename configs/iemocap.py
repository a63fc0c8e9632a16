"""IEMOCAP: faces, voices and words of actors, 4 emotions.

python -m c3r_jax.data.prepare iemocap --source DIR --out data
python train.py --config=configs/iemocap.py --workdir=runs/iemocap
python eval.py --workdir=runs/iemocap
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of IEMOCAP."""
    config = benchmark.get_config(
        "iemocap", train_size=3318, batch_size=640, epochs=100, patience=10, learning_rate=1e-4
    )
    benchmark.use_images(config, pixels=224, resize=256)
    benchmark.use_texts(config, tokens=64)
    config.model.sequence.patch = 16  # of 1,024 frames
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.5, 2
    config.eval.protocols = ("gaussian",)
    return config
