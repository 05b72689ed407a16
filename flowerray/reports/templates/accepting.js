"use strict";
// What a precision asked for would accept of the evidence: a slider, and the errors among them.
(() => {
  const { photographs, steps, errors } = JSON.parse(document.getElementById("accepting-data").textContent);
  const find = (id) => document.getElementById(id);
  const percent = (share, digits) => `${(100 * share).toFixed(digits)}%`;
  const count = (number) => number.toLocaleString("en");

  const inWords = (step) => `${Number((100 * step.precision).toFixed(1))}%`;

  function cell(name, text, attributes = {}) {
    const made = document.createElement(name);
    const inner = document.createElement("bdi");
    inner.textContent = text;
    made.append(inner);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function draw() {
    const step = steps[Number(find("precision").value)];
    const asked = inWords(step);
    const { accepted, wrong } = step;
    find("precision").setAttribute("aria-valuetext", asked);
    find("asked").textContent = asked;
    find("share").setAttribute("width", (100 * accepted) / photographs);
    const most = steps.findLast((one) => one.accepted);
    const right = `${count(wrong)} of the accepted are wrong, ${percent(1 - wrong / accepted, 1)} right`;
    const why = most
      ? `no class passes the test; the highest precision at which one does is ${inWords(most)}`
      : "so little evidence shows none of these precisions";
    find("said").textContent =
      `accepts ${count(accepted)} of ${count(photographs)}, leaves ${count(photographs - accepted)}; ` +
      (accepted ? right : why);
    find("option").textContent = `--min-precision ${step.precision}`;
    find("errors-of").hidden = !wrong;
    find("errors-count").textContent =
      step.errors.length < wrong ? `${count(step.errors.length)} of ${count(wrong)} errors` : `${count(wrong)} errors`;
    find("errors-rows").replaceChildren(
      ...step.errors.map((i) => {
        const { uri, label, prediction, confidence } = errors[i];
        const row = document.createElement("tr");
        row.append(
          cell("td", prediction),
          cell("td", label),
          cell("td", percent(confidence, 1), { class: "number" }),
          cell("th", uri.slice(uri.lastIndexOf("/") + 1), { scope: "row", title: uri }),
        );
        return row;
      }),
    );
  }

  const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function save() {
    const step = steps[Number(find("precision").value)];
    const rows = step.errors.map((i) => `${field(errors[i].uri)}\n`);
    const link = document.createElement("a");
    link.download = "errors.csv";
    link.href = URL.createObjectURL(new Blob(["uri\n", ...rows], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  find("precision").addEventListener("input", draw);
  find("errors-save").addEventListener("click", save);
  find("accepting").hidden = false;
  draw();
})();
