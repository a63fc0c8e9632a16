"""BraTS 2020: four kinds of magnetic resonance images, a tumour segmented voxel by voxel; Dice by modality subset.

python -m c3r_jax.data.prepare brats2020 --source DIR --out data
python train.py --config=configs/brats.py --workdir=runs/brats
python eval.py --workdir=runs/brats
"""

from ml_collections import ConfigDict

from configs import benchmark


def get_config() -> ConfigDict:
    """Returns the configuration of BraTS 2020."""
    config = benchmark.get_config(
        "brats2020", train_size=226, batch_size=2, epochs=100, patience=10, learning_rate=1e-3
    )
    config.task = "segmentation"
    config.train.select_by = "mean_dice"
    config.data.volume_size = (64, 64, 64)
    config.model.dim = 8  # rows of the loss are voxels
    config.c3r.subsets = False  # each of four modalities alone is one more set of maps to fuse, read and keep
    config.model.volume.network, config.model.volume.width, config.model.volume.depth = "unet", 16, 4
    config.model.remat = True  # a whole volume has nine million voxels
    config.eval.batch_size = 1
    config.eval.protocols = ()
    return config
