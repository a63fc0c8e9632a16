"""Reports: from ``results.json`` to Markdown, figures and one HTML page, without JAX or a trained model."""

from c3r_jax.metrics.intervals import Difference, Stat
from c3r_jax.report.aggregate import Aggregate, aggregate, compare
from c3r_jax.report.cells import Table
from c3r_jax.report.document import Report, assemble
from c3r_jax.report.html import FigureFile, html_table, report_html
from c3r_jax.report.interpretation import what_it_means
from c3r_jax.report.path_figures import path_figure
from c3r_jax.report.plots import modality_bars, reliability_diagram, risk_curves, robustness_curves, training_curves
from c3r_jax.report.tables import results_table, routes_table
from c3r_jax.report.write import results_markdown, run_markdown, write_report

__all__ = [
    "Aggregate",
    "Difference",
    "FigureFile",
    "Report",
    "Stat",
    "Table",
    "aggregate",
    "assemble",
    "compare",
    "html_table",
    "modality_bars",
    "path_figure",
    "reliability_diagram",
    "report_html",
    "results_markdown",
    "results_table",
    "risk_curves",
    "robustness_curves",
    "routes_table",
    "run_markdown",
    "training_curves",
    "what_it_means",
    "write_report",
]
