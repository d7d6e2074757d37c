// The report's charts, which Vega draws in the place of its pictures. Without scripts, and on
// paper, the pictures stay.
"use strict";

const runs = JSON.parse(document.getElementById("runs").textContent);

// A row for each point of the curves that `series` gives of each of `chosen`. A curve is a name,
// its values, and their deviations if there are any.
const rowsOf = (chosen, series) =>
  chosen.flatMap((run) =>
    series(run).flatMap(([name, curve, deviations]) =>
      curve.map((value, place) => ({
        run: run.label,
        epoch: place + 1,
        series: name,
        value,
        low: deviations ? value - deviations[place] : null,
        high: deviations ? value + deviations[place] : null,
        kept: name === "validation" && place + 1 === run.kept,
      })),
    ),
  );

// A chart of `chosen`, to read off: hovering shows the nearest point's values, a click on the
// legend singles a run out. `compared`: offer the differences from the first run, too.
function curves(chosen, width, compared) {
  const first = chosen[0];
  const measures = ["validation error", "training error"];
  if (compared) measures.push(...measures.map((measure) => `${measure} minus ${first.run}'s`));
  const values = rowsOf(chosen, (run) =>
    run.errors.flatMap(([name, curve, deviations], index) => {
      const [, other] = first.errors[index];
      const gaps = curve.map((value, place) => value - other[place]);
      return [[`${name} error`, curve, deviations], [`${name} error minus ${first.run}'s`, gaps]];
    }),
  );
  const y = { type: "quantitative", title: null, axis: { format: "%" }, scale: { zero: true } };
  const domain = chosen.map((run) => run.label);
  const byRun = {
    field: "run",
    type: "nominal",
    sort: null,
    title: null,
    legend: { ...LEGEND, direction: "horizontal", columns: columnsOf(width, 225) },
  };
  const colours = { domain, range: chosen.map((run) => run.colour) };
  const dashes = { domain, range: chosen.map((run) => (run.usual ? [1, 0] : [5, 3])) };
  const faded = (value, less) => ({ condition: { param: "pick", value }, value: less });
  return {
    data: { values },
    width: "container",
    height: 360,
    params: [
      { name: "measure", value: measures[0], bind: { input: "radio", name: " ", options: measures } },
    ],
    transform: [{ filter: "datum.series === measure" }],
    encoding: { x: epochs(values, width), color: { ...byRun, scale: colours } },
    layer: [
      ...bands(values, y, faded(0.15, 0.02)),
      {
        params: [{ name: "pick", select: { type: "point", fields: ["run"] }, bind: "legend" }],
        mark: line(values),
        encoding: {
          y: { field: "value", ...y },
          strokeDash: { ...byRun, scale: dashes },
          opacity: faded(1, 0.1),
        },
      },
      {
        transform: [{ filter: { param: "pick" } }],
        ...nearest(y, [{ field: "run" }, { field: "epoch" }, { field: "value", format: ".2%" }]),
      },
    ],
  };
}

// A panel for each of `chosen`, all of one scale, with the curves that `series` gives of it.
function panels(chosen, width, title, series, axis, format) {
  const values = rowsOf(chosen, series);
  const largest = Math.max(...values.map((row) => Math.abs(row.value ?? 0)));
  const columns = Math.min(3, columnsOf(width, 165));
  const each = (width - 60) / columns - 15;
  const scale = { type: largest > 20 ? "symlog" : "linear" };
  const y = { type: "quantitative", title: null, scale, axis };
  const names = series(chosen[0]).map(([name]) => name);
  const best = {
    transform: [{ filter: "datum.kept" }],
    mark: { type: "point", filled: true, size: 50 },
    encoding: { y: { field: "value", ...y } },
  };
  return {
    data: { values },
    columns,
    facet: {
      field: "run",
      type: "nominal",
      sort: chosen.map((run) => run.label),
      title: null,
      header: { labelFontSize: each < 180 ? 10 : 12 },
    },
    spec: {
      width: each,
      height: 170,
      encoding: {
        x: epochs(values, each),
        color: {
          field: "series",
          type: "nominal",
          sort: names,
          title,
          scale: { scheme: "viridis", domain: names },
          legend: LEGEND,
        },
      },
      layer: [
        ...bands(values, y, { value: 0.2 }),
        { mark: line(values), encoding: { y: { field: "value", ...y } } },
        ...(values.some((row) => row.kept) ? [best] : []),
        nearest(y, [
          { field: "run" },
          { field: "epoch" },
          { field: "series", title },
          { field: "value", format },
        ]),
      ],
    },
    spacing: 15,
  };
}

// A layer of bands of one deviation; none of a single seed.
const bands = (values, y, opacity) =>
  values.every((row) => row.low === null)
    ? []
    : [
        {
          transform: [{ filter: "isValid(datum.low)" }],
          mark: "area",
          encoding: { y: { field: "low", ...y }, y2: { field: "high" }, opacity },
        },
      ];

// A layer of points of which the one nearest to the pointer shows, with its values.
const nearest = (y, tooltip) => ({
  params: [
    {
      name: "near",
      select: { type: "point", nearest: true, on: "pointerover", clear: "pointerout" },
    },
  ],
  mark: { type: "point", filled: true, size: 60 },
  encoding: {
    y: { field: "value", ...y },
    tooltip,
    opacity: { condition: { param: "near", empty: false, value: 1 }, value: 0 },
  },
});

const last = (values) => Math.max(...values.map((row) => row.epoch));

// The axis of epochs, whole numbers alone.
const epochs = (values, width) => ({
  field: "epoch",
  type: "quantitative",
  axis: { tickCount: Math.max(1, Math.min(last(values) - 1, width / 50)), format: "d", grid: false },
});

// A line; of few epochs with their points, which a single one would not show without.
const line = (values) => ({ type: "line", point: last(values) < 10 && { size: 20 } });

const columnsOf = (width, each) => Math.max(1, Math.floor(width / each));
const LEGEND = { orient: "bottom", symbolType: "stroke", symbolOpacity: 1, symbolSize: 250 };

const CHARTS = {
  curves: (chosen, width) => curves(chosen, width, false),
  compared: (chosen, width) => curves(chosen, width, true),
  errors: (chosen, width) => panels(chosen, width, "error", (run) => run.errors, { format: ".0%" }, ".2%"),
  quantiles: (chosen, width) => panels(chosen, width, "quantile", (run) => run.quantiles, {}, ".4g"),
};
const FONTS = { labelFontSize: 12, titleFontSize: 12, labelLimit: 0 };
const CONFIG = { axis: FONTS, legend: FONTS, header: FONTS };

for (const figure of document.querySelectorAll("figure[data-chart]")) {
  const chosen = figure.dataset.runs.split(" ").map((name) => runs.find((run) => run.run === name));
  const spec = CHARTS[figure.dataset.chart](chosen, figure.clientWidth);
  figure.classList.add("drawn"); // first: what is not shown has no width
  vegaEmbed(figure.querySelector(".chart"), spec, { actions: false, renderer: "svg", config: CONFIG }).catch(
    (error) => {
      figure.classList.remove("drawn");
      console.error(error);
    },
  );
}
