// The trend over runs: data of history.hpp.
const run_label = (run) => run.started.slice(0, 16).replace("T", " ") + " " + run.commit + (run.stopped ? " (stopped early)" : "");
const shown_in_table = (x) => Number.isInteger(x) ? String(x) : figure(x); // counts are whole
const known = (x) => x !== null && x !== undefined;
const trend_picture = (column, title, more) => (kernel, colours, on_point) => {
  const options = base_options(colours, on_point), labels = page.runs.map(run_label);
  const scale = more.bound_line ? util_scale(page.kernels.flatMap((row) => row[column].filter(known))) : null, shown = scale ? scale.at : Number;
  options.scales = {x: axis(colours, "", {type: "category", labels, offset: true}), y: scale ? scale.axis(colours, title) : axis(colours, title, {min: 0})};
  Object.assign(options.plugins, more);
  return {
    data: {labels, datasets: page.kernels.map((row, at) => ({label: row.name, showLine: true, spanGaps: true, borderWidth: 1.5, ...look_of(at), borderColor: look_of(at).colour, pointRadius: 4,
      data: row[column].flatMap((x, run) => known(x) ? [{x: labels[run], y: shown(x), replay: row.replay[run] ?? undefined, says: row.name + ", " + labels[run] + ": " + shown_in_table(x) + ", " + row.verdict[run]}] : [])}))},
    options, caption: page.runs.length + " runs, oldest first." + (scale ? scale.note : ""), columns: [["kernel"], ...labels.map((label) => [label, true])],
    rows: page.kernels.map((row) => [row.name, ...row[column].map((x, run) => !known(x) ? "–" : element("span", {title: row.verdict[run]}, shown_in_table(x)))]),
  };
};
section("summary").textContent = page.runs.length + " runs of " + page.kernels.length + " kernels." + (page.same_cases ? "" : " Tier or seed differ between runs: they drew different cases.");
add_picture("trend", trend_picture("util", "largest error / bound", {bound_line: {axis: "y"}}));
add_picture("failures", trend_picture("failures", "failing cases", {}));
add_picture("speed", trend_picture("seconds", "seconds per case, oracle included", {}), {replays: false});
section("runs").append(table([["started"], ["commit"], ["tier"], ["seed"], ["CPU"], ["cases", true], ["failures", true], ["seconds", true], ["folder"]],
  page.runs.map((run) => [run.started, run.commit, run.tier, run.seed, run.cpu, String(run.cases) + (run.stopped ? " (stopped early)" : ""), element("span", {class: run.failures ? "bad" : "good"}, String(run.failures)), figure(run.seconds), run.folder])));
const redraw = () => draw_all(-1);
redraw();
for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redraw);
addEventListener("beforeprint", redraw);
addEventListener("afterprint", redraw);
document.documentElement.dataset.drawn = String(charts.length);
