// The report's charts, which Vega draws in the place of its pictures. Without scripts, and on
// paper, the pictures stay.
"use strict";

const runs = JSON.parse(document.getElementById("runs").textContent);
const ERRORS = { val_error: "validation error", train_error: "training error" };

// A curve for each of `chosen`, to read off: hovering shows the nearest point's values, a click
// on the legend singles a run out. `compared`: offer the differences from the first run, too.
function curves(chosen, width, compared) {
  const measures = { ...ERRORS };
  if (compared) {
    for (const [name, title] of Object.entries(ERRORS)) {
      measures[`${name}_difference`] = `${title} minus ${chosen[0].run}'s`;
    }
  }
  const values = chosen.flatMap((run) =>
    run.errors.val_error.map((_, place) => {
      const row = { run: run.label, epoch: place + 1 };
      for (const name of Object.keys(ERRORS)) {
        row[name] = run.errors[name][place];
        const deviation = run.deviations[name]?.[place];
        row[`${name}_low`] = deviation === undefined ? null : row[name] - deviation;
        row[`${name}_high`] = deviation === undefined ? null : row[name] + deviation;
        row[`${name}_difference`] = row[name] - chosen[0].errors[name][place];
      }
      return row;
    }),
  );
  const y = { type: "quantitative", title: null, axis: { format: "%" }, scale: { zero: true } };
  const colours = { domain: chosen.map((run) => run.label), range: chosen.map((run) => run.colour) };
  const dashes = { domain: colours.domain, range: chosen.map((run) => (run.usual ? [1, 0] : [5, 3])) };
  const legend = {
    orient: "bottom",
    direction: "horizontal",
    columns: columnsOf(width, 225),
    symbolType: "stroke",
    symbolOpacity: 1,
    symbolSize: 250,
  };
  const faded = (value, less) => ({ condition: { param: "pick", value }, value: less });
  const band = {
    transform: [{ filter: "isValid(datum.low)" }],
    mark: "area",
    encoding: { y: { field: "low", ...y }, y2: { field: "high" }, opacity: faded(0.15, 0.02) },
  };
  return {
    data: { values },
    width: "container",
    height: 360,
    params: [
      {
        name: "measure",
        value: "val_error",
        bind: { input: "radio", name: " ", options: Object.keys(measures), labels: Object.values(measures) },
      },
    ],
    transform: [
      { calculate: "datum[measure]", as: "value" },
      { calculate: "datum[measure + '_low']", as: "low" },
      { calculate: "datum[measure + '_high']", as: "high" },
    ],
    encoding: {
      x: epochs(values, width),
      color: { field: "run", type: "nominal", sort: null, title: null, scale: colours, legend },
    },
    layer: [
      ...(chosen.some((run) => run.deviations.val_error) ? [band] : []),
      {
        params: [{ name: "pick", select: { type: "point", fields: ["run"] }, bind: "legend" }],
        mark: line(values),
        encoding: {
          y: { field: "value", ...y },
          strokeDash: { field: "run", type: "nominal", sort: null, title: null, scale: dashes, legend },
          opacity: faded(1, 0.1),
        },
      },
      {
        transform: [{ filter: { param: "pick" } }],
        ...nearest({ field: "value", ...y }, [
          { field: "run" },
          { field: "epoch" },
          { field: "value", type: "quantitative", format: ".2%" },
        ]),
      },
    ],
  };
}

// A panel for each of `chosen`, all of one scale. `series` gives a run's curves, each a name, its
// values, and their deviations if there are any; `kept`: mark the run's best epoch on this one.
function panels(chosen, width, legendTitle, series, format, kept) {
  const values = chosen.flatMap((run) =>
    series(run).flatMap(([name, curve, deviations]) =>
      curve.map((value, place) => ({
        run: run.label,
        epoch: place + 1,
        series: name,
        value,
        low: deviations ? value - deviations[place] : null,
        high: deviations ? value + deviations[place] : null,
        kept: name === kept && place + 1 === run.kept,
      })),
    ),
  );
  const largest = Math.max(...values.map((row) => Math.abs(row.value ?? 0)));
  const scale = { type: largest > 20 ? "symlog" : "linear" };
  const columns = Math.min(3, columnsOf(width, 165));
  const each = (width - 60) / columns - 15;
  const y = { type: "quantitative", title: null, scale, axis: format ? { format } : {} };
  const value = { field: "value", ...y };
  const names = series(chosen[0]).map(([name]) => name);
  const band = {
    transform: [{ filter: "isValid(datum.low)" }],
    mark: { type: "area", opacity: 0.2 },
    encoding: { y: { field: "low", ...y }, y2: { field: "high" } },
  };
  const best = {
    transform: [{ filter: "datum.kept" }],
    mark: { type: "point", filled: true, size: 50 },
    encoding: { y: value },
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
          title: legendTitle,
          scale: { scheme: "viridis", domain: names },
          legend: { orient: "bottom", symbolType: "stroke", symbolSize: 250, symbolOpacity: 1 },
        },
      },
      layer: [
        ...(values.some((row) => row.low !== null) ? [band] : []),
        { mark: line(values), encoding: { y: value } },
        ...(values.some((row) => row.kept) ? [best] : []),
        nearest(value, [
          { field: "run" },
          { field: "epoch" },
          { field: "series", title: legendTitle },
          { field: "value", format: format ? ".2%" : ".4g" },
        ]),
      ],
    },
    spacing: 15,
  };
}

// A layer of points of which the one nearest to the pointer shows, with its values.
function nearest(y, tooltip) {
  return {
    params: [{ name: "near", select: { type: "point", nearest: true, on: "pointerover", clear: "pointerout" } }],
    mark: { type: "point", filled: true, size: 60 },
    encoding: { y, tooltip, opacity: { condition: { param: "near", empty: false, value: 1 }, value: 0 } },
  };
}

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

const CHARTS = {
  curves: (chosen, width) => curves(chosen, width, false),
  compared: (chosen, width) => curves(chosen, width, true),
  errors: (chosen, width) =>
    panels(
      chosen,
      width,
      "error",
      (run) => [
        ["training", run.errors.train_error, run.deviations.train_error],
        ["validation", run.errors.val_error, run.deviations.val_error],
      ],
      ".0%",
      "validation",
    ),
  quantiles: (chosen, width) => panels(chosen, width, "quantile", (run) => Object.entries(run.quantiles)),
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
