"""The report of a study as a page, a document or single figures. Numbers come from report/views/ only."""
