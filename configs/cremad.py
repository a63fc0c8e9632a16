"""CREMA-D: faces and voices of actors, 6 emotions.

python -m c3r_jax.data.prepare cremad --source DIR --out data
python train.py --config=configs/cremad.py --workdir=runs/cremad
python eval.py --workdir=runs/cremad
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of CREMA-D."""
    config = benchmark.get_config(
        "cremad", train_size=6027, batch_size=640, epochs=200, patience=10, learning_rate=1e-4
    )
    benchmark.use_images(config, pixels=224, resize=256)
    # As in the public code: ResNet-18 on spectrograms and on frames. Without weights both are trained from scratch.
    config.model.sequence.pretrained, config.model.sequence.width = "audio_resnet18", 512
    config.model.image.pretrained, config.model.image.width = "resnet18", 512
    config.optimizer.plateau_factor, config.optimizer.plateau_patience = 0.5, 2
    config.eval.protocols = ("gaussian",)
    return config
