// The pictures, drawn by Chart.js, each with a table of what it shows.
const style_value = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const ink = () => ({text: style_value("--ink"), quiet: style_value("--quiet"), line: style_value("--line"), bad: style_value("--bad"), band: style_value("--band"), heat: style_value("--heat")});
const charts = [];

// Viridis in nine steps: read in grey as well as in colour, and by those who do not see red and green apart.
const ramp = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
// Hues that stand on white and on black; the mark's shape tells the outputs apart as well.
const series = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2", "#c2a000", "#9c755f", "#d37295", "#79706e"];
const shade = (util) => ramp[Math.max(0, Math.min(8, Math.floor(util * 9)))];
const finite = (i) => Number.isFinite(Number(cases.util[i]));

// Non-finite points stand at the upper edge of a picture.
const points_of = (chosen, x, y) => chosen.map((i) => ({x: x(i), y: y(i), i}));
const indices = (kernel, holds) => cases.kernel.map((_, i) => i).filter((i) => (kernel < 0 || cases.kernel[i] === kernel) && holds(i));
const describe = (i) => page.kernels[cases.kernel[i]].name + ", " + page.property_words[cases.property[i]] + " on " + page.regimes[cases.regime[i]] + ": " +
  (cases.tensor[i] < 0 ? "" : page.tensors[cases.tensor[i]] + ", ") + (failed(cases.verdict[i]) ? page.verdicts[cases.verdict[i]] + ", " : "") + (cases.util[i] === "NaN" ? "no figure" : "error / bound " + figure(cases.util[i])) + ", T=" + page.recipes[cases.recipe[i]][1];

const axis = (colours, title, more = {}) => ({title: {display: true, text: title, color: colours.text}, grid: {color: colours.line}, ticks: {color: colours.text}, ...more});
const shapes = ["circle", "triangle", "rect", "rectRot", "star"];
// Colour and shape of the nth of many: fifty before one comes again. A star has no inside, so that its border carries the colour.
const look_of = (at) => {
  const colour = series[at % series.length], pointStyle = shapes[(at + Math.floor(at / series.length)) % shapes.length];
  return {pointStyle, colour, pointBackgroundColor: colour, pointBorderColor: colour};
};
const powers_of_ten = (value) => Math.abs(Math.log10(value) % 1) < 1e-6 ? (value >= 0.01 && value < 1e4 ? String(value) : "1e" + Math.round(Math.log10(value))) : null;

// Errors / bounds near 1 stand on a linear axis; where one is far above, the axis is logarithmic. What is not finite stands at its upper edge.
const util_scale = (values) => {
  const numbers = values.map(Number), finite_ones = numbers.filter((x) => Number.isFinite(x)), broken = finite_ones.length < numbers.length;
  const most = Math.max(1.05, ...finite_ones), far = most > 3, least = 1e-3;
  const edge = far ? 10 ** Math.ceil(Math.log10(most) + 0.2) : broken ? Math.ceil(10 * most + 1) / 10 : most;
  return {
    at: (value) => { const x = Number(value); return !Number.isFinite(x) ? edge : far ? Math.max(least, x) : x; },
    note: broken ? " What is not finite stands at the edge." : "",
    axis: (colours, title = "error / bound") => far
      ? axis(colours, title, {type: "logarithmic", min: least, max: edge, ticks: {color: colours.text, autoSkip: true, maxRotation: 0, callback: powers_of_ten}})
      : axis(colours, title, {type: "linear", min: 0, ...(broken ? {max: edge} : {suggestedMax: edge})}),
  };
};

// The bound: a line at 1.
const bound_line = {
  id: "bound_line",
  afterDatasetsDraw(chart) {
    const direction = chart.options.plugins.bound_line?.axis;
    if (!direction) return;
    const {ctx, chartArea: area, scales} = chart, at = scales[direction].getPixelForValue(1);
    ctx.save();
    ctx.strokeStyle = ink().bad;
    ctx.setLineDash([6, 4]);
    ctx.beginPath();
    if (direction === "y") { ctx.moveTo(area.left, at); ctx.lineTo(area.right, at); }
    else { ctx.moveTo(at, area.top); ctx.lineTo(at, area.bottom); }
    ctx.stroke();
    ctx.restore();
  },
};

// The range of decay that gates have where published models start: A in [1, 16], dt in [1e-3, 0.1]; and the largest per token that was
// measured on trained weights of Kimi Linear (SGLang #27488).
const start_range = {from: 1e-3, to: 1.6}, trained_most = 2661;
const operating_range = {
  id: "operating_range",
  beforeDatasetsDraw(chart) {
    if (!chart.options.plugins.operating_range?.shown) return;
    const {ctx, chartArea: area, scales: {x}} = chart, colours = ink();
    const left = x.getPixelForValue(start_range.from), right = x.getPixelForValue(start_range.to);
    ctx.save();
    ctx.fillStyle = "rgba(" + colours.band + ", 0.13)";
    ctx.fillRect(left, area.top, right - left, area.bottom - area.top);
    ctx.strokeStyle = "rgba(" + colours.band + ", 0.7)";
    ctx.strokeRect(left, area.top, right - left, area.bottom - area.top);
    ctx.setLineDash([5, 4]);
    ctx.strokeRect(right, area.top, x.getPixelForValue(trained_most) - right, area.bottom - area.top);
    ctx.restore();
  },
};

const base_options = (colours, on_point) => ({
  responsive: true, maintainAspectRatio: false, animation: false, clip: 10,
  plugins: {
    legend: {labels: {color: colours.text, usePointStyle: true, boxWidth: 8, boxHeight: 8}},
    tooltip: {callbacks: {title: () => "", label: (item) => item.raw.i === undefined ? item.raw.says ?? "" : describe(item.raw.i)}},
  },
  onHover: (event, found, chart) => {
    const raw = found.length ? chart.data.datasets[found[0].datasetIndex].data[found[0].index] : undefined;
    if (raw && raw.i !== undefined) on_point(token_of(raw.i));
    else if (raw && raw.replay) on_point(raw.replay);
  },
});

// A picture in a section: canvas, replay line, table. `make(kernel, colours)` returns {data, options, caption, columns, rows}.
// `name` tells pictures of one section apart where they are saved.
const add_picture = (id, make, {note, replays = true, about, name} = {}) => {
  const home = section(id);
  const canvas = element("canvas", {role: "img", "aria-label": about ?? home.querySelector("h2").textContent});
  const frame = element("div", {class: "picture"}, canvas);
  const caption = element("p", {class: "quiet"});
  const line = element("span", {class: "token"}, "Point at a mark: its replay command appears here.");
  const under = element("div", {class: "under"}, ...(replays ? [line, copy_button(() => line.textContent)] : []),
    element("button", {type: "button", onclick: () => save_picture(chart, name ? id + "-" + name : id)}, "save PNG"));
  const numbers = element("details", {open: ""}, element("summary", {}, "table"));
  home.append(note ?? "", caption, frame, under, numbers);
  let chart = null;
  const draw = (kernel) => {
    const made = make(kernel, ink(), (token) => { line.textContent = command(token); });
    if (made.height) frame.style.height = made.height;
    frame.hidden = made.rows.length === 0;
    caption.textContent = made.caption;
    numbers.replaceChildren(element("summary", {}, "table"), table(made.columns, made.rows));
    if (chart) {
      chart.data = made.data;
      chart.options = made.options;
      chart.update("none");
    } else {
      chart = new Chart(canvas, {type: made.type ?? "scatter", data: made.data, options: made.options, plugins: [bound_line, operating_range]});
    }
  };
  charts.push({id, draw, chart: () => chart, canvas});
};

// A printed picture is about two thirds as wide as on a screen: its letters start larger.
const draw_all = (kernel) => {
  Chart.defaults.font.size = matchMedia("print").matches ? 17 : 12;
  for (const {draw} of charts) draw(kernel);
};

// On the page's own paper: alone, a picture saved in dark mode would be light ink on whatever it is put on.
const save_picture = (chart, name) => {
  const {width, height} = chart.canvas, sheet = element("canvas", {width, height}), brush = sheet.getContext("2d");
  brush.fillStyle = style_value("--paper");
  brush.fillRect(0, 0, width, height);
  brush.drawImage(chart.canvas, 0, 0);
  element("a", {href: sheet.toDataURL("image/png"), download: "kdacheck-" + name + ".png"}).click();
};

const median = (sorted) => sorted[Math.floor((sorted.length - 1) / 2)];
const summarised = (chosen) => {
  const figures = chosen.map((i) => Number(cases.util[i])).map((x) => Number.isNaN(x) ? Infinity : x).sort((a, b) => a - b);
  return {count: figures.length, median: median(figures), most: figures[figures.length - 1]};
};
const grouped = (chosen, key) => {
  const groups = new Map();
  for (const i of chosen) groups.set(key(i), [...(groups.get(key(i)) ?? []), i]);
  return [...groups.entries()].sort((a, b) => a[0] - b[0]);
};
const worst_of = (chosen) => chosen.reduce((worst, i) => !(Number(cases.util[i]) <= Number(cases.util[worst])) ? i : worst, chosen[0]);
const with_replay = (i) => element("span", {title: command(token_of(i))}, page.regimes[cases.regime[i]] + ", " + page.property_words[cases.property[i]]);
const drawn_note = () => page.drawn < page.measured ? " Drawn: the worst " + page.drawn + " of " + page.measured + " measured cases." : "";

const on_top = -1; // of datasets the library draws that of the least order last
const no_decay = 1e-7; // where a logarithmic axis shows a decay of 0
const decay_of = (i) => {
  const decay = page.recipes[cases.recipe[i]][2];
  return decay === 0 ? no_decay : Math.min(5e3, Math.max(3e-7, decay));
};
const correlation_of = (i) => page.recipes[cases.recipe[i]][3];
const decay_classes = [[0, 0, "0"], [0, 1e-3, "below 1e-3"], [1e-3, 1.6, "1e-3 to 1.6"], [1.6, Infinity, "above 1.6"]];
const correlation_classes = [[-1, 0.1, "to 0.1"], [0.1, 0.6, "0.1 to 0.6"], [0.6, 0.95, "0.6 to 0.95"], [0.95, 1, "above 0.95"]];
const within = (x, [low, high]) => low === high ? x === low : x > low && x <= high;

const phase_picture = (kernel, colours, on_point) => {
  const chosen = indices(kernel, () => true);
  const sound = chosen.filter(finite).sort((a, b) => cases.util[a] - cases.util[b]), broken = chosen.filter((i) => !finite(i));
  const options = base_options(colours, on_point);
  options.plugins.operating_range = {shown: true};
  options.plugins.legend.display = broken.length > 0;
  options.scales = {
    x: axis(colours, "typical decay |ln α| per token", {type: "logarithmic", min: no_decay / 2, max: 6000, ticks: {color: colours.text, autoSkip: false, maxRotation: 0,
      callback: (value) => value === no_decay ? "0" : Math.abs(Math.log10(value) % 1) < 1e-6 && value >= 1e-6 && value <= 1000 ? "1e" + Math.round(Math.log10(value)) : null}}),
    y: axis(colours, "key correlation", {min: -0.05, max: 1.05, ticks: {color: colours.text, callback: (value) => value.toFixed(1)},
      afterBuildTicks: (scale) => { scale.ticks = [0, 0.2, 0.4, 0.6, 0.8, 1].map((value) => ({value})); }}),
  };
  const rows = decay_classes.flatMap((decay) => correlation_classes.map((correlation) => {
    const here = chosen.filter((i) => within(page.recipes[cases.recipe[i]][2], decay) && within(correlation_of(i), correlation));
    if (here.length === 0) return null;
    const {count, median: middle, most} = summarised(here);
    return [decay[2], correlation[2], String(count), figure(middle), figure(most), String(here.filter((i) => !finite(i)).length), with_replay(worst_of(here))];
  })).filter((row) => row);
  return {
    data: {datasets: [
      {label: "error / bound", data: points_of(sound, decay_of, correlation_of), pointBackgroundColor: sound.map((i) => shade(cases.util[i])),
       pointBorderColor: sound.map((i) => failed(cases.verdict[i]) ? colours.bad : colours.quiet), pointBorderWidth: sound.map((i) => failed(cases.verdict[i]) ? 2 : 0.5), pointRadius: 6, pointHoverRadius: 8},
      {label: "non-finite", order: on_top, data: points_of(broken, decay_of, correlation_of), pointStyle: "crossRot", pointBorderColor: colours.bad, pointBorderWidth: 3, pointRadius: 8},
    ]},
    options, rows,
    columns: [["decay"], ["key correlation"], ["cases", true], ["median", true], ["largest error / bound", true], ["non-finite", true], ["worst at"]],
    caption: chosen.length + " cases; the worst lie on top. The band is where gates lie when published models start (A 1..16, dt 1e-3..0.1: |ln α| 1e-3 to 1.6), dashed where trained Kimi Linear takes them (up to " + trained_most + ")." + drawn_note(),
  };
};

const along_picture = (where, title, kernel, colours, on_point, scale, classes, spoken = String) => {
  const chosen = indices(kernel, (i) => where(i) >= 0 && cases.tensor[i] >= 0);
  const heights = util_scale(chosen.map((i) => cases.util[i])), height = (i) => heights.at(cases.util[i]);
  const options = base_options(colours, on_point);
  options.plugins.bound_line = {axis: "y"};
  options.scales = {x: axis(colours, title, scale), y: heights.axis(colours)};
  const groups = grouped(chosen, (i) => classes(where(i)));
  const datasets = page.tensors.map((tensor, t) => ({label: tensor, pointRadius: 3, ...look_of(t), pointBackgroundColor: look_of(t).colour + "b0", pointBorderWidth: look_of(t).pointStyle === "star" ? 1 : 0.5,
    data: points_of(chosen.filter((i) => cases.tensor[i] === t && finite(i)), where, height)})).filter((set) => set.data.length > 0);
  const broken = chosen.filter((i) => !finite(i));
  if (broken.length) datasets.push({label: "non-finite", order: on_top, data: points_of(broken, where, height), pointStyle: "crossRot", pointBorderColor: colours.bad, pointBorderWidth: 3, pointRadius: 7});
  return {
    data: {datasets}, options, caption: chosen.length + " cases; the dashed line is the bound." + heights.note + drawn_note(),
    columns: [[title], ["cases", true], ["median", true], ["largest error / bound", true], ["worst at"]],
    rows: groups.map(([low, here]) => {
      const {count, median: middle, most} = summarised(here);
      const highest = Math.max(...here.map(where)), lowest = Math.min(...here.map(where));
      return [lowest === highest ? spoken(lowest) : spoken(lowest) + " to " + spoken(highest), String(count), figure(middle), figure(most), with_replay(worst_of(here))];
    }),
  };
};

const no_token = 0.5; // where a logarithmic axis shows a length of 0
const length_tick = (value) => {
  const leading = Number(value.toExponential(6).split("e")[0]);
  return value === no_token ? "0" : value >= 1 && [1, 2, 5].includes(leading) ? String(value) : null;
};
const length_picture = (kernel, colours, on_point) => along_picture((i) => Math.max(no_token, page.recipes[cases.recipe[i]][1]), "longest sequence T", kernel, colours, on_point,
  {type: "logarithmic", min: 0.4, ticks: {color: colours.text, maxRotation: 0, autoSkip: false, callback: length_tick}},
  (T) => Math.floor(Math.log2(T)), (T) => T === no_token ? "0" : String(T));

const position_picture = (kernel, colours, on_point) => along_picture((i) => cases.position[i], "position in the chunk", kernel, colours, on_point,
  {type: "linear", min: -1, suggestedMax: 15, ticks: {color: colours.text, autoSkip: false},
    afterBuildTicks: (scale) => { scale.ticks = Array.from({length: Math.floor(scale.max / 8) + 1}, (_, i) => ({value: 8 * i})); }}, (position) => Math.floor(position / 8));

// Per kernel: 5 % to 95 % thin, 25 % to 75 % thick, median and largest as marks.
const spread_picture = (tensor) => (kernel, colours, on_point) => {
  const rows = page.spread.filter((row) => row[1] === tensor && (kernel < 0 || row[0] === kernel));
  const names = rows.map((row) => page.kernels[row[0]].name);
  const scale = util_scale(rows.flatMap((row) => row.slice(3))), shown = scale.at;
  const options = base_options(colours, on_point);
  const says = (row) => page.kernels[row[0]].name + ": median " + figure(row[6]) + ", 5 % to 95 % " + figure(row[4]) + " to " + figure(row[8]) + ", largest " + figure(row[9]);
  const marks_of = (column) => rows.map((row, at) => ({x: shown(row[column]), y: names[at], says: says(row)}));
  const spans = (low, high) => rows.map((row, at) => ({x: [shown(row[low]), shown(row[high])], y: names[at], says: says(row)}));
  options.indexAxis = "y";
  options.plugins.bound_line = {axis: "x"};
  options.scales = {x: scale.axis(colours),
                    y: axis(colours, "", {type: "category", labels: names, offset: true, ticks: {color: colours.text, autoSkip: false}})};
  return {
    type: "bar", height: Math.max(10, 5 + 1.6 * rows.length) + "rem", options,
    data: {labels: names, datasets: [
      {type: "scatter", label: "largest", data: marks_of(9), pointStyle: "triangle", pointRadius: 5, pointBackgroundColor: colours.text, pointBorderColor: colours.text},
      {type: "scatter", label: "median", data: marks_of(6), pointStyle: "line", rotation: 90, pointRadius: 8, pointBorderWidth: 3, pointBorderColor: colours.text, pointBackgroundColor: colours.text},
      {label: "25 % to 75 %", pointStyle: "rect", data: spans(5, 7), grouped: false, barThickness: 14, backgroundColor: "rgba(" + colours.heat + ", 0.75)"},
      {label: "5 % to 95 %", pointStyle: "rect", data: spans(4, 8), grouped: false, barThickness: 5, backgroundColor: "rgba(" + colours.heat + ", 0.45)"},
    ]},
    columns: [["kernel"], ["cases", true], ["least", true], ["5 %", true], ["25 %", true], ["median", true], ["75 %", true], ["95 %", true], ["largest", true]],
    rows: rows.map((row) => [page.kernels[row[0]].name, String(row[2]), ...row.slice(3).map(figure)]),
    caption: (page.tensors[tensor].startsWith("d") ? "Gradient " : "Output ") + page.tensors[tensor] + ", every measured case. The dashed line is the bound." + scale.note,
  };
};
