"""The layouts by name; one is imported when it is asked for."""

import importlib

from c3r_jax.data.builders.layout import Layout
from c3r_jax.errors import ConfigError

LAYOUTS = {  # name: where its class is
    "brats2020": "brats:Brats2020",
    "brats2021": "brats:Brats2021",
    "cremad": "cremad:CremaD",
    "food101": "image_text:Food101",
    "hateful_memes": "image_text:HatefulMemes",
    "iemocap": "iemocap:Iemocap",
    "mosei": "mosei:Mosei",
    "mosei_mult": "mosei:MoseiMult",
    "mosei_mult_unaligned": "mosei:MoseiMultUnaligned",
    "mosei_unaligned": "mosei:MoseiUnaligned",
    "mvsa": "image_text:MvsaSingle",
    "nyud2": "scenes:NyuDepthV2",
    "stamps": "stamps:Stamps",
    "sunrgbd": "scenes:SunRgbd",
    "table": "table:Table",
    "uci_views": "uci_views:UciViews",
    "watch": "watch:Watch",
}


def find_layout(name: str) -> Layout:
    """Returns the layout of a benchmark.

    Raises:
      ConfigError: there is none of this name.

    Example:
      >>> find_layout("nyud2").published_sizes["test"]
      654
    """
    if name not in LAYOUTS:
        raise ConfigError(f"The benchmark {name!r} is unknown: expected one of {', '.join(LAYOUTS)}.")
    module, _, attribute = LAYOUTS[name].partition(":")
    return getattr(importlib.import_module(f"c3r_jax.data.builders.{module}"), attribute)()
