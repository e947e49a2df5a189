"""The figures of a report as Vega-Lite specifications. They compute nothing but positions on axes."""
