"use strict";
(() => {
  const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const order = (row, column, text) => {
    const cell = row.children[column];
    return text ? row.dataset.name : cell.dataset.effect ? Number(cell.dataset.effect) : null;
  };

  function sort(header, headers) {
    const text = header.dataset.kind === "text";
    const steps = text ? ["ascending", "descending", null] : ["descending", "ascending", null];
    const next = steps[(steps.indexOf(header.getAttribute("aria-sort")) + 1) % steps.length];
    headers.forEach((each) => each.removeAttribute("aria-sort"));
    if (next) header.setAttribute("aria-sort", next);
    const column = headers.indexOf(header);
    const sign = next === "descending" ? -1 : 1;
    for (const body of header.closest("table").tBodies) {
      const rows = $$("tr.method", body);
      rows.sort((a, b) => {
        const first = a.dataset.place - b.dataset.place;
        if (!next) return first;
        const [x, y] = [order(a, column, text), order(b, column, text)];
        if (x === null || y === null) return (x === null) - (y === null) || first;
        return sign * (text ? x.localeCompare(y) : x - y) || first;
      });
      body.append(...rows);
    }
  }

  for (const table of $$("table.matrix")) {
    $$("tr.method", table).forEach((row, place) => (row.dataset.place = place));
    const headers = $$("th.sortable", table);
    for (const header of headers) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      button.addEventListener("click", () => sort(header, headers));
      header.append(button);
    }
  }

  const [text, verdict, count] = ["text", "verdict", "count"].map((name) => document.getElementById(`filter-${name}`));
  function filter() {
    const rows = $$("tr.method");
    const wanted = text.value.trim().toLowerCase();
    for (const row of rows) {
      const verdicts = $$("td", row).map((cell) => cell.dataset.verdict);
      const named = row.dataset.name.toLowerCase().includes(wanted);
      row.hidden = !named || (verdict.value !== "" && !verdicts.includes(verdict.value));
    }
    count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows`;
  }
  document.querySelector(".controls").hidden = false;
  text.addEventListener("input", filter);
  verdict.addEventListener("change", filter);
  filter();

  const shut = [];
  addEventListener("beforeprint", () => {
    shut.push(...$$("details:not([open])"));
    shut.forEach((each) => (each.open = true));
  });
  addEventListener("afterprint", () => shut.splice(0).forEach((each) => (each.open = false)));
})();
