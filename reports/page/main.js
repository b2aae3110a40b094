// Puts the page together.
let shown_kernel = -1;
const choices = [];

const kernel_choice = () => {
  const choice = element("select", {"aria-label": "kernel"}, element("option", {value: "-1"}, "all kernels"),
    ...page.kernels.map((kernel, k) => element("option", {value: String(k)}, kernel.name)));
  choice.addEventListener("change", () => {
    shown_kernel = Number(choice.value);
    for (const other of choices) other.value = choice.value;
    redraw();
  });
  choices.push(choice);
  return element("div", {class: "choices"}, element("label", {}, "kernel ", choice));
};

const colour_key = () => {
  const bar = element("span", {class: "ramp"});
  bar.style.background = "linear-gradient(to right, " + ramp.map((colour, i) => colour + " " + (100 * i / 9).toFixed(1) + "% " + (100 * (i + 1) / 9).toFixed(1) + "%").join(", ") + ")";
  const band = element("span", {class: "ramp"});
  band.style.cssText = "width: 1.6rem; background: rgba(var(--band), .2); border: 1px solid rgba(var(--band), .7)";
  return element("div", {class: "key"}, element("span", {}, "error / bound 0 ", bar, " 1"), element("span", {}, band, " gates of published models at their start; dashed: trained"),
    element("span", {}, "red ring: failed; red cross: non-finite, or no answer"));
};

const redraw = () => draw_all(shown_kernel);

// On paper nothing can be opened: what is closed is printed open, and closed again.
const closed = () => [...document.querySelectorAll("details:not([open])")];
let opened_to_print = [];
const open_all = () => { opened_to_print = [...opened_to_print, ...closed()]; for (const each of opened_to_print) each.open = true; };
const close_again = () => { for (const each of opened_to_print) each.open = false; opened_to_print = []; };

show_heading();
show_kernels();
show_failures();
show_matrix();
show_modules();
show_refusals();
show_environment();
if (page.drawn === 0) {
  for (const id of ["phase", "length", "position", "spread"]) section(id).append(element("p", {}, "No case of this run measured an error at a place."));
} else {
  for (const id of ["phase", "length", "position"]) section(id).append(kernel_choice());
  add_picture("phase", phase_picture, {note: colour_key()});
  add_picture("length", length_picture);
  add_picture("position", position_picture);
  for (const tensor of new Set(page.spread.map((row) => row[1]))) add_picture("spread", spread_picture(tensor), {replays: false, name: page.tensors[tensor]});
}
if (page.series) {
  section("drift").append(kernel_choice());
  add_picture("drift", drift_by_token_picture, {name: "token", about: "error / bound along one sequence"});
  add_picture("drift", drift_by_length_picture, {name: "length", about: "relative error by sequence length"});
  add_picture("spectra", smallest_eigenvalue_picture, {name: "eigenvalue", replays: false, about: "smallest eigenvalue and its proved enclosure"});
  add_picture("spectra", norm_picture, {name: "norm", replays: false, about: "norm, its proved bound and the heuristic"});
} else {
  for (const id of ["drift", "spectra"]) section(id).append(element("p", {}, "Not measured: ", element("code", {}, "./kdacheck measure --out DIR"), " adds it to a run."));
}
show_limits();
show_performance();
addEventListener("beforeprint", open_all);
addEventListener("afterprint", close_again);
if (charts.length) {
  redraw();
  // Colours follow the page's: dark mode and print.
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redraw);
  addEventListener("beforeprint", redraw);
  addEventListener("afterprint", redraw);
}
document.documentElement.dataset.drawn = String(charts.length);
