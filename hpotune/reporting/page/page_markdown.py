"""The report as a Markdown document: the answers and the tables, for a repository or a message. It has no figures."""

from __future__ import annotations

from hpotune.config.text.outside_text import markdown_text
from hpotune.reporting.page.answers import answers, subject, summary
from hpotune.reporting.page.page_tables import TABLES, report_tables
from hpotune.reporting.page.text_table import TextTable
from hpotune.reporting.views.study_report import StudyReport


def markdown_page(report: StudyReport) -> str:
    """The document."""
    lines = [
        f"# {markdown_text(report.best.study)}",
        "",
        markdown_text(f"{subject(report)}: {summary(report)}"),
        "",
    ]
    for one in answers(report):
        lines += [f"**{one.question}** {markdown_text(one.headline)}", ""]
        lines += [f"- {markdown_text(name)}: {markdown_text(value)}" for name, value in one.settings]
        lines += [f"- {markdown_text(detail)}" for detail in one.details if detail]
        lines += [""]
    for name, table in report_tables(report).items():
        if table is not None and table.rows:
            lines += [f"## {TABLES[name][0]}", "", *_table(table), ""]
    return "\n".join(lines)


def _table(table: TextTable) -> list[str]:
    """The lines of a table; columns of numbers are aligned to the right."""
    rule = ["---:" if at in table.numbers else "---" for at in range(len(table.columns))]
    rows = [table.columns, *table.rows]
    head, *body = (f"| {' | '.join(map(markdown_text, row))} |" for row in rows)
    note = ["", f"{markdown_text(table.note)}."] if table.note else []
    return [head, f"| {' | '.join(rule)} |", *body, *note]
