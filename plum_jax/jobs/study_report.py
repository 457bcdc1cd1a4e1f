"""The job of `gin/run/study_report.gin`."""

from __future__ import annotations


def study_report(model_dir: str) -> None:
    """Writes the report of a study, or of a fit of other people's runs, into its directory.

    Args:
      model_dir: STUDY_DIR.
    """
    from plum_jax.scaling.report import write_study_report  # matplotlib: only where a page is written

    print(f"report: {write_study_report(model_dir)}")
