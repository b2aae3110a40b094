// The data, how figures are worded, and elements made from text (never from markup).
const page = JSON.parse(document.getElementById("data").textContent);
const cases = page.cases;
const PASSED = 0, NOT_SUPPORTED = 5, INCONCLUSIVE = 4;
const failed = (verdict) => verdict !== PASSED && verdict !== NOT_SUPPORTED && verdict !== INCONCLUSIVE;

const figure = (value) => {
  if (value === null || value === undefined) return "–";
  const x = Number(value);
  if (!Number.isFinite(x)) return Number.isNaN(x) ? "nan" : x > 0 ? "inf" : "-inf";
  if (x === 0) return "0";
  if (Math.abs(x) < 0.01) return x.toExponential(1);
  return Math.abs(x) < 10 ? x.toFixed(2) : Math.abs(x) < 1e4 ? x.toPrecision(3).replace(/\.0+$/, "") : x.toExponential(1);
};

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value);
  }
  for (const child of children) if (child !== null && child !== undefined) made.append(child);
  return made;
};

// Columns: [heading, is a number]. Cells: text or elements.
const table = (columns, rows) => {
  const cell = (name, content, is_number) => element(name, is_number ? {class: "number"} : {}, content);
  return element("div", {class: "scroll"}, element("table", {},
    element("thead", {}, element("tr", {}, ...columns.map(([heading, is_number]) => cell("th", heading, is_number)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((content, i) => cell("td", content, columns[i][1])))))));
};

const command = (token) => page.replay + " '" + token.replaceAll("'", "'\\''") + "'";
const token_of = (i) => page.kernel_words[cases.kernel[i]] + ":" + page.property_words[cases.property[i]] + ":" + page.recipes[cases.recipe[i]][0];

// navigator.clipboard is missing on pages opened from a file in some browsers.
const copy = (text, button) => {
  const area = element("textarea", {}, text);
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  button.textContent = done ? "copied" : "select and copy by hand";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
};
const copy_button = (text) => {
  const button = element("button", {type: "button"}, "copy");
  button.addEventListener("click", () => copy(typeof text === "function" ? text() : text, button));
  return button;
};
