"""From the files of trainings to results, statistics, figures and the report."""
