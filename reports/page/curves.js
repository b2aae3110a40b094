// Curves that a run's neighbours add: series.json of measure, power.json of gate-power, bench.json of bench.
const drift_of = (kernel) => page.series.drift.filter((row) => kernel < 0 || row.kernel === page.kernels[kernel]?.name);
const drift_label = (row) => row.kernel + ", " + row.regime;
// Colour by kernel, shape by regime.
const drift_look = (row, rows) => {
  const place = (key) => [...new Set(rows.map((each) => each[key]))].indexOf(row[key]), colour = series[place("kernel") % series.length];
  return {showLine: true, borderColor: colour, pointBackgroundColor: colour, pointBorderColor: colour, borderWidth: 1.5, pointRadius: 3, pointStyle: shapes[place("regime") % shapes.length]};
};
const token_axis = (colours, title) => axis(colours, title, {type: "logarithmic", min: 0.9, ticks: {color: colours.text, maxRotation: 0, autoSkip: false,
  callback: (value) => Number(value.toExponential(6).split("e")[0]) === 1 ? value.toLocaleString("en") : null}});

// The worst token of every quarter octave, so that an error that grows is seen however late it starts.
const drift_by_token_picture = (kernel, colours, on_point) => {
  const rows = drift_of(kernel).filter((row) => row.windows.length);
  const scale = util_scale(rows.flatMap((row) => row.windows.map((window) => window[1]))), shown_util = scale.at;
  const options = base_options(colours, on_point);
  options.plugins.bound_line = {axis: "y"};
  options.scales = {x: token_axis(colours, "token of the sequence (counted from 1)"), y: scale.axis(colours)};
  const replay = (row) => row.lengths[row.lengths.length - 1][5];
  return {
    data: {datasets: rows.map((row) => ({...drift_look(row, rows), label: drift_label(row), data: row.windows.map(([token, largest, middle]) => ({x: token + 1, y: shown_util(largest), replay: replay(row),
      says: drift_label(row) + ", token " + token + ": error / bound " + figure(largest) + ", median nearby " + figure(middle)}))}))},
    options, caption: "Largest error / bound of o in every quarter octave of one sequence of " + page.series.longest.toLocaleString("en") + " tokens: a curve that climbs drifts away from what the contract explains. Colour: kernel; shape: regime.",
    columns: [["kernel"], ["regime"], ["to token 1,000", true], ["to 10,000", true], ["to 100,000", true], ["beyond", true], ["worst token", true]],
    rows: rows.map((row) => {
      const most = (low, high) => { const here = row.windows.filter(([token]) => token >= low && token < high); return here.length ? figure(Math.max(...here.map((window) => Number(window[1])))) : "–"; };
      const worst = row.windows.reduce((a, b) => Number(b[1]) > Number(a[1]) ? b : a);
      return [row.kernel, element("span", {title: command(replay(row))}, row.regime), most(0, 1e3), most(1e3, 1e4), most(1e4, 1e5), most(1e5, Infinity), String(worst[0])];
    }),
  };
};

const drift_by_length_picture = (kernel, colours, on_point) => {
  const rows = drift_of(kernel), judged = (row) => row.lengths.filter((length) => length[1] !== "not_supported" && Number(length[3]) > 0);
  const options = base_options(colours, on_point);
  const shortest = Math.min(...rows.flatMap((row) => judged(row).map((length) => length[0])));
  options.scales = {x: {...token_axis(colours, "tokens of the sequence"), min: shortest / 2}, y: axis(colours, "relative error (rms, o and final state)", {type: "logarithmic", ticks: {color: colours.text, autoSkip: true, maxTicksLimit: 8, callback: (value) => Math.abs(Math.log10(value) % 1) < 1e-6 ? value.toExponential(0) : null}})};
  const lengths = [...new Set(rows.flatMap((row) => judged(row).map((length) => length[0])))].sort((a, b) => a - b);
  return {
    data: {datasets: rows.map((row) => ({...drift_look(row, rows), label: drift_label(row), data: judged(row).map((length) => ({x: length[0], y: Number(length[3]), replay: length[5],
      says: drift_label(row) + ", T=" + length[0] + ": relative error " + figure(length[3]) + ", error / bound " + figure(length[2]) + " in " + length[4]}))})).filter((set) => set.data.length)},
    options, caption: "The same sequence cut at each length: relative error of all that was written. The table gives the error / bound.",
    columns: [["kernel"], ["regime"], ...lengths.map((T) => ["T=" + T.toLocaleString("en"), true])],
    rows: rows.filter((row) => judged(row).length).map((row) => [row.kernel, row.regime, ...lengths.map((T) => { const found = row.lengths.find((length) => length[0] === T); return found && found[1] !== "not_supported" ? element("span", {title: command(found[5])}, figure(found[2])) : "–"; })]),
  };
};

// Columns of a sample: series.hpp.
const TAU = 0, LEAST = 1, LOW = 2, HIGH = 3, RADIUS = 4, RADIUS_BOUND = 5, NORM = 6, NORM_BOUND = 7, HEURISTIC = 8, OUTSIDE = 9, GROWS = 10, WITHIN = 11, FALSE_ALARM = 12, SILENT = 13;
const samples_of = (rule) => page.series.spectra.filter((row) => row.rule === rule).flatMap((row) => row.samples.map((sample) => ({sample, regime: row.regime})));
const count = (rows, column) => rows.filter(({sample}) => sample[column]).length;
const spectrum_says = ({sample, regime}) => regime + ": tau " + figure(sample[TAU]) + ", smallest eigenvalue " + figure(sample[LEAST]) + ", norm " + figure(sample[NORM]) + " (at most " + figure(sample[NORM_BOUND]) + "), heuristic " + figure(sample[HEURISTIC]);

const smallest_eigenvalue_picture = (kernel, colours, on_point) => {
  const rows = samples_of("kda").filter(({sample}) => sample[TAU] > -1 && sample[TAU] < 6);
  const options = base_options(colours, on_point);
  options.scales = {x: axis(colours, "tau = beta |k|²", {type: "linear"}), y: axis(colours, "smallest eigenvalue", {type: "linear"})};
  const spans = rows.flatMap((row) => [{x: row.sample[TAU], y: Number(row.sample[LOW]), says: spectrum_says(row)}, {x: row.sample[TAU], y: Number(row.sample[HIGH]), says: spectrum_says(row)}, {x: NaN, y: NaN}]);
  const bands = [[(tau) => tau < 0, "below 0"], [(tau) => tau >= 0 && tau <= 1, "0 to 1"], [(tau) => tau > 1 && tau <= 2, "1 to 2"], [(tau) => tau > 2, "above 2"]];
  return {
    data: {datasets: [
      {label: "computed", data: rows.map((row) => ({x: row.sample[TAU], y: row.sample[LEAST], says: spectrum_says(row)})), pointRadius: 2.5, pointBackgroundColor: colours.text, pointBorderWidth: 0},
      {label: "proved enclosure (S5)", data: spans, showLine: true, spanGaps: false, pointRadius: 0, pointHitRadius: 0, borderWidth: 5, borderColor: "rgba(" + colours.heat + ", 0.4)", pointStyle: "line"},
    ]},
    options, caption: "KDA, " + rows.length + " transitions out of all regimes. Below 0 the key is reflected (tau > 1); every computed eigenvalue must lie on its bar. " + count(rows, OUTSIDE) + " transitions leave what is proved of them.",
    columns: [["tau"], ["transitions", true], ["least", true], ["widest enclosure", true], ["outside", true]],
    rows: bands.map(([holds, label]) => {
      const here = rows.filter(({sample}) => holds(sample[TAU]));
      return here.length ? [label, String(here.length), figure(Math.min(...here.map(({sample}) => sample[LEAST]))), figure(Math.max(...here.map(({sample}) => sample[HIGH] - sample[LOW]))), String(count(here, OUTSIDE))] : null;
    }).filter((row) => row),
  };
};

const norm_picture = (kernel, colours, on_point) => {
  const options = base_options(colours, on_point), all = ["kda", "dplr"].map((rule) => [rule, samples_of(rule)]);
  options.plugins.bound_line = {axis: "y"};
  const ceiling = 4, drawn = (rows) => rows.filter(({sample}) => sample[NORM] <= ceiling);
  options.scales = {x: axis(colours, "norm of the transition, computed", {type: "linear", min: 0}), y: axis(colours, "what is said of it", {type: "linear", min: 0, max: ceiling + 0.5})};
  const marks = (rows, column, more) => ({data: drawn(rows).map((row) => ({x: row.sample[NORM], y: Math.min(ceiling + 0.4, row.sample[column]), says: spectrum_says(row)})), ...more});
  const [[, kda], [, dplr]] = all;
  return {
    data: {datasets: [
      marks(kda, NORM_BOUND, {label: "KDA, proved bound", pointStyle: "circle", pointRadius: 3, pointBackgroundColor: series[0] + "b0", pointBorderWidth: 0}),
      marks(dplr, NORM_BOUND, {label: "general form, proved bound", pointStyle: "rect", pointRadius: 4, pointBackgroundColor: series[2] + "b0", pointBorderWidth: 0}),
      marks(kda, HEURISTIC, {label: "KDA, heuristic", pointStyle: "cross", pointRadius: 4, pointBorderColor: series[1], pointBorderWidth: 1.2}),
      marks(dplr, HEURISTIC, {label: "general form, heuristic", pointStyle: "crossRot", pointRadius: 4, pointBorderColor: series[3], pointBorderWidth: 1.2}),
    ].filter((set) => set.data.length)},
    options, caption: "A bound close to the diagonal is tight; above the dashed line it cannot exclude growth. The heuristic max(α)(1 + β|k|²) > 1 (general form: max|d| + |a||b| > 1) warns of all its marks above the line.",
    columns: [["rule"], ["transitions", true], ["outside their bounds", true], ["proved not to grow", true], ["proved to grow", true], ["heuristic warns", true], ["falsely", true], ["silent on growth", true]],
    rows: all.filter(([, rows]) => rows.length).map(([rule, rows]) => [rule === "kda" ? "KDA" : "general form", String(rows.length), String(count(rows, OUTSIDE)), String(count(rows, WITHIN)), String(count(rows, GROWS)),
      String(rows.filter(({sample}) => sample[HEURISTIC] > 1 || sample[FALSE_ALARM]).length), String(count(rows, FALSE_ALARM)), String(count(rows, SILENT))]),
  };
};

// Smallest relative error that the gate refuses, 2^-exponent: keys of power_json.hpp. Where even 1/2 gets through, 2^0.
const limit_of = (row) => row.exponent === null || row.exponent === undefined ? 0 : -row.exponent;
const power_of_two = (exponent) => "2" + [...String(exponent)].map((digit) => digit === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[digit]).join("");
const in_words = (row) => limit_of(row) === 0 ? "none" : power_of_two(limit_of(row));
const of_limits = (key) => [...new Set(page.limits.map((row) => row[key]))];
const limits_of = (label, what) => page.limits.filter((row) => row.label === label && row.what === what);
const sharpest = (rows) => rows.reduce((a, b) => limit_of(b) < limit_of(a) ? b : a);
let shown_contract = null;

// All contracts at a glance: the best of the regimes.
const limits_matrix = () => {
  const kinds = of_limits("what"), finest = Math.min(...page.limits.map(limit_of));
  const cell = (label, what) => {
    const rows = limits_of(label, what);
    if (!rows.length) return element("td", {class: "quiet", title: label + " has no " + what}, "–");
    const best = sharpest(rows), made = element("td", {title: label + ", error in " + what + ": " + in_words(best) + " on " + best.regime}, limit_of(best) === 0 ? "none" : "−" + -limit_of(best));
    made.style.background = "rgba(var(--heat), " + (0.55 * limit_of(best) / Math.min(finest, -1)).toFixed(3) + ")";
    return made;
  };
  const head = element("tr", {}, element("th", {}), ...kinds.map((what) => element("th", {}, element("span", {}, what))));
  const rows = of_limits("label").map((label) => element("tr", {}, element("th", {title: page.limits.find((row) => row.label === label).contract}, label), ...kinds.map((what) => cell(label, what))));
  return element("div", {class: "scroll"}, element("table", {class: "matrix"}, element("thead", {}, head), element("tbody", {}, ...rows)));
};

const contract_choice = () => {
  const choice = element("select", {"aria-label": "contract"}, ...of_limits("label").map((label) => element("option", {value: label}, label)));
  shown_contract = choice.value;
  choice.addEventListener("change", () => {
    shown_contract = choice.value;
    redraw();
  });
  return element("div", {class: "choices"}, element("label", {}, "contract ", choice));
};

// One contract: a bar spans the regimes, from the one that sees least to the one that sees most.
const limits_picture = (kernel, colours, on_point) => {
  const regimes = of_limits("regime"), kinds = of_limits("what").filter((what) => limits_of(shown_contract, what).length);
  const options = base_options(colours, on_point);
  options.plugins.legend.display = false;
  options.scales = {x: axis(colours, "error in", {type: "category", ticks: {color: colours.text, autoSkip: false, maxRotation: 60}}),
    y: axis(colours, "smallest relative error that is refused", {type: "linear", reverse: true, max: 0, ticks: {color: colours.text, stepSize: 4, callback: power_of_two}})};
  const bars = kinds.map((what) => {
    const rows = limits_of(shown_contract, what), sizes = rows.map(limit_of), low = Math.min(...sizes), high = Math.max(...sizes);
    return {x: what, y: [low, low === high ? low + 0.15 : high], says: "error in " + what + ": " + rows.map((row) => in_words(row) + " on " + row.regime).join(", ")};
  });
  return {
    type: "bar", height: "22rem",
    data: {labels: kinds, datasets: [{label: shown_contract, data: bars, backgroundColor: "rgba(" + colours.heat + ", 0.75)", borderSkipped: false}]},
    options, caption: page.limits.find((row) => row.label === shown_contract).contract + ". A bar spans " + regimes.length + " regimes: its upper end is what a run of all of them sees.",
    columns: [["error in"], ["best", true], ...regimes.map((regime) => [regime, true])],
    rows: kinds.map((what) => {
      const rows = limits_of(shown_contract, what);
      return [what, in_words(sharpest(rows)), ...regimes.map((regime) => { const found = rows.find((row) => row.regime === regime); return found ? in_words(found) : "–"; })];
    }),
  };
};
const show_limits = () => {
  if (!page.limits || !page.limits.length) return void section("limits").append(element("p", {}, "Not measured: no power.json with limits lies beside this run (", element("code", {}, "./kdacheck gate-power --limits"), " writes one; ", element("code", {}, "--power FILE"), " takes another's)."));
  section("limits").append(element("p", {}, "Exponents of two: where −20 stands, an error of 2⁻²⁰ of its tensor's size is refused on every one of " + Math.min(...page.limits.map((row) => row.seeds)) + " seeds, in the best of the regimes; a smaller one hides in what the contract allows."), limits_matrix());
  add_picture("limits", limits_picture, {replays: false, note: contract_choice()});
};

// Shares of the two ceilings that the same process measured; the nearer one is what a kernel could still gain against.
const performance_picture = (kernel, colours, on_point) => {
  const rows = page.bench.rows.filter((row) => row.flops > 0 && (kernel < 0 || row.kernel === page.kernels[kernel]?.name));
  const intensity = (row) => row.flops / row.bytes, rate = (row) => row.flops / (row.median_ms * 1e6);
  const copy = page.bench.copy_bytes_per_second * 1e-9, peak = page.bench.fp32_flops_per_second * 1e-9;
  const options = base_options(colours, on_point), lowest = Math.min(...rows.map(intensity), peak / copy) / 3, highest = Math.max(...rows.map(intensity), peak / copy) * 3;
  const tick = {color: colours.text, maxRotation: 0, callback: (value) => [1, 2, 5].includes(Number(value.toExponential(6).split("e")[0])) ? String(value) : null};
  options.scales = {x: axis(colours, "operations per byte", {type: "logarithmic", min: lowest, max: highest, ticks: tick}), y: axis(colours, "GFLOP/s", {type: "logarithmic", ticks: tick})};
  const roof = [lowest, peak / copy, highest].map((x) => ({x, y: Math.min(peak, copy * x), says: "ceiling: " + figure(copy) + " GB/s copied, " + figure(peak) + " GFLOP/s in fp32"}));
  const says = (row) => row.kernel + " " + row.what + ", " + row.case + ": " + figure(row.median_ms) + " ms (" + figure(row.least_ms) + " to " + figure(row.most_ms) + "), " + figure(rate(row)) + " GFLOP/s";
  const passes = [...new Set(rows.map((row) => row.what))];
  return {
    data: {datasets: [
      {label: "ceilings measured in the same run", data: roof, showLine: true, pointRadius: 0, pointStyle: "line", borderColor: colours.bad, borderDash: [6, 4], borderWidth: 1.5},
      ...passes.map((what, at) => ({label: what, pointStyle: ["circle", "triangle"][at % 2], pointRadius: 5, pointBackgroundColor: series[at], pointBorderColor: colours.quiet,
        data: rows.filter((row) => row.what === what).map((row) => ({x: intensity(row), y: rate(row), says: says(row)}))})),
    ]},
    options, caption: "Bytes: each input read once, each output written once. Operations: what the algorithm needs.",
    columns: [["kernel"], ["pass"], ["case"], ["median ms", true], ["least", true], ["most", true], ["of copy bandwidth", true], ["of fp32 peak", true]],
    rows: rows.map((row) => [row.kernel, row.what, row.case, figure(row.median_ms), figure(row.least_ms), figure(row.most_ms), (100 * row.of_bandwidth).toFixed(1) + " %", (100 * row.of_compute).toFixed(1) + " %"]),
  };
};
const show_performance = () => {
  if (page.bench && page.bench.rows.some((row) => row.flops > 0)) add_picture("performance", performance_picture, {replays: false});
  else section("performance").append(element("p", {}, page.bench ? "Not measured: the bench.json beside this run times no kernel's pass (" : "Not measured: no bench.json lies beside this run (",
    element("code", {}, "./kdacheck bench --out DIR"), page.bench ? " does)." : ")."));
};
