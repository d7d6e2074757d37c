"""The page that `dvc plots show` fills: it carries its chart library, and so needs no network.

DVC's own page loads the library from the internet. `.dvc/page.html`, which `plots.html_template`
in .dvc/config names, is what `python -m normlab.report.page` writes; a test compares the two.
"""

from pathlib import Path

from normlab.utils import files

PAGE = Path(".dvc/page.html")
VEGA_LITE = "5.21"  #: of the major version that DVC's templates are written for

#: DVC puts the plots in the place of {plot_divs}. Its placeholder for scripts is left out: it
#: would load the library a second time, from the internet.
TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>normlab: plots</title>
{refresh_tag}
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 1640px; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; }
#plots { display: flex; flex-wrap: wrap; gap: 1.5rem; }
#plots > div { overflow-x: auto; border-color: #ddd !important; }
img { max-width: 100%; height: auto; }
@media print { #plots { display: block; } #plots > div { break-inside: avoid; overflow: visible !important; } #plots svg { max-width: 100%; height: auto; } .vega-embed.has-actions { padding: 0; } summary, .vega-bindings { display: none; } img { max-height: 20cm; } }
</style>
<script>
BUNDLE
</script>
</head>
<body>
<h1>What does the normalization layer do to a ResNet?</h1>
<p>Click an entry of a legend to single out a run, drag to move, scroll to zoom, double-click to go back.</p>
<div id="plots">
{plot_divs}
</div>
</body>
</html>
"""  # noqa: E501


def bundle() -> str:
    """The chart library, Vega, as one script; it defines `vegaEmbed`."""
    from vl_convert import javascript_bundle

    return javascript_bundle(vl_version=VEGA_LITE)  # type: ignore[call-arg]  # wrong stubs


def content() -> str:
    return TEMPLATE.replace("BUNDLE", bundle())


if __name__ == "__main__":
    files.write_text(PAGE, content())
