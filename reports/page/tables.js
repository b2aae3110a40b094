// The parts of the page that are text.
const section = (id) => document.getElementById(id);

const show_heading = () => {
  section("title").textContent = "kdacheck: " + page.title;
  section("title").className = page.status === 0 ? "good" : "bad";
  document.title = "kdacheck: " + page.title;
  section("summary").textContent = page.summary + (page.escalation ? "; " + page.escalation : "") + (page.complete ? "." : ". The run was stopped early: what it did not reach is not judged.");
};

const verdict_word = (word) => element("span", {class: word === "passed" ? "good" : word === "not supported" ? "quiet" : "bad"}, word);

const show_kernels = () => {
  const worst = (kernel) => kernel.where ? element("span", {title: command(kernel.replay)}, kernel.where) : "";
  section("kernels").append(table(
    [["kernel"], ["contract"], ["verdict"], ["cases", true], ["not supported", true], ["error / bound", true], ["worst at"]],
    page.kernels.map((kernel) => [element("span", {title: kernel.contract}, kernel.name), kernel.in_short, verdict_word(kernel.verdict), String(kernel.cases),
                                  String(kernel.not_supported), figure(kernel.util), worst(kernel)])));
};

const show_failures = () => {
  const home = section("failures");
  if (page.failures.length === 0) {
    home.append(element("p", {}, "None."));
    return;
  }
  const most = 200;
  for (const failure of page.failures.slice(0, most)) {
    const line = command(failure.replay);
    home.append(element("div", {class: "failure"},
      element("p", {}, element("b", {}, failure.kernel), " ", verdict_word(failure.verdict), " " + failure.property + " on " + failure.regime +
              " (" + failure.cases + (failure.cases === 1 ? " case" : " cases") + (failure.util === null ? "" : ", error / bound " + figure(failure.util)) + ")"),
      failure.place ? element("p", {}, "at " + failure.place) : null,
      failure.detail ? element("p", {class: "quiet"}, failure.detail) : null,
      failure.stage ? element("p", {class: "stage"}, failure.stage) : null,
      element("p", {}, element("code", {}, line), " ", copy_button(line)),
      failure.seen ? element("p", {class: "quiet"}, failure.seen) : null));
  }
  if (page.failures.length > most) home.append(element("p", {}, "and " + (page.failures.length - most) + " more groups: junit.xml lists them all."));
};

const matrix_cell = (cell, property, kernel) => {
  if (!cell || cell[0] === NOT_SUPPORTED) return element("td", {class: "quiet", title: kernel.name + ", " + property + ": not supported"}, "–");
  const [verdict, util, count, regime, replay] = cell;
  const x = Number(util);
  const text = failed(verdict) ? (util === null ? "✗" : figure(util)) : x === 0 ? "ok" : figure(util);
  const made = element("td", {title: kernel.name + ", " + property + ": " + page.verdicts[verdict] + ", " + count + " cases, worst on " + regime + "\n" + command(replay)}, text);
  if (failed(verdict)) made.className = "failed";
  else made.style.background = "rgba(var(--heat), " + (0.55 * Math.min(1, x)).toFixed(3) + ")";
  return made;
};

const show_matrix = () => {
  const head = element("tr", {}, element("th", {}), ...page.kernels.map((kernel) => element("th", {}, element("span", {}, kernel.name))));
  const rows = page.matrix.properties.map((property, i) => element("tr", {}, element("th", {}, property),
    ...page.kernels.map((kernel, k) => matrix_cell(page.matrix.cells[i][k], property, kernel))));
  section("matrix").append(element("div", {class: "scroll"}, element("table", {class: "matrix"}, element("thead", {}, head), element("tbody", {}, ...rows))));
};

const show_modules = () => {
  if (!page.modules.length) return void section("modules").append(element("p", {}, "No module was judged."));
  const judged = (kind, rows) => table([[kind], ["cases", true], ["passed", true], ["failed", true], ["error / bound", true]],
    rows.map(([name, count, passed, failures, util]) => [name, String(count), String(passed), String(failures), figure(util)]));
  for (const {name, laws, regimes, figures, heading, sentence} of page.modules) {
    section("modules").append(element("h3", {}, name), judged("law", laws), judged("regime", regimes));
    if (!figures.length) continue;
    const known = figures.filter((row) => !row.none), lost = figures.filter((row) => row.none);
    section("modules").append(element("h3", {}, name + ": " + heading), element("p", {}, sentence));
    if (known.length)
      section("modules").append(table([["regime"], ...known[0].figures.map(([what]) => [what, true])],
        known.map((row) => [row.regime, ...row.figures.map(([, value]) => Number.isInteger(value) ? String(value) : figure(value))])));
    for (const row of lost) section("modules").append(element("p", {}, "No figures of " + row.regime + ": " + row.none));
  }
};

const show_refusals = () => {
  const total = page.not_supported.reduce((sum, row) => sum + row.cases, 0);
  section("refusals").append(element("p", {}, total + " cases lay outside a kernel's declared contract and were not judged."));
  if (total === 0) return;
  const reasons = new Map(); // alike but for a case's own figure: "K=60 is not in 16..256"
  for (const {kernel, reason, cases: count} of page.not_supported) {
    const alike = reason.replace(/=[^ ,;]+ is /, "=… is "), known = reasons.get(alike) ?? {count: 0, kernels: new Set()};
    known.count += count;
    known.kernels.add(kernel);
    reasons.set(alike, known);
  }
  section("refusals").append(
    table([["reason"], ["kernels", true], ["cases", true]], [...reasons].sort((a, b) => b[1].count - a[1].count).map(([reason, {count, kernels}]) => [reason, String(kernels.size), String(count)])),
    element("details", {class: "on-screen"}, element("summary", {}, "by kernel"),
      table([["kernel"], ["reason"], ["cases", true]], page.not_supported.map((row) => [row.kernel, row.reason, String(row.cases)]))));
};

const show_environment = () => section("environment").append(table([[""], [""]], page.context.map(([key, value]) => [key, element("code", {}, value)])));
