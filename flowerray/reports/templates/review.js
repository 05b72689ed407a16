"use strict";
// The review queue: one photograph at a time, a decision for each, all decisions as a CSV.
(() => {
  const source = document.getElementById("review-data");
  if (!source) return;
  const { run, classes, queue } = JSON.parse(source.textContent);
  const byUri = new Map(queue.map((entry) => [entry.uri, entry]));
  const find = (id) => document.getElementById(id);
  const NONE = "none";
  const NUMBERED = 9; // classes that a digit can choose

  // Decisions are a log of [uri, label], so that undoing is dropping the last. Another report of
  // these labels may have queued other photographs: what was decided there is kept beside.
  const KEY = `flowerray-decisions-${run}`;
  let kept = true;
  let log = [];
  try {
    const earlier = JSON.parse(localStorage.getItem(KEY));
    if (Array.isArray(earlier)) log = earlier;
  } catch {
    kept = false; // a page opened as a file may be denied its storage
  }
  let saved = log.length; // of the log, by an export
  const isHere = ([uri, label]) => byUri.has(uri) && (label === NONE || classes.includes(label));
  const decisions = () => new Map(log.filter(isHere));

  function keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify(log));
      kept = true;
    } catch {
      kept = false;
    }
  }

  let view = []; // entries that the filters let through, sorted
  let at = 0; // view.length is the end, where there is nothing to decide

  const ORDERS = {
    least: (a, b) => a.confidence - b.confidence,
    most: (a, b) => b.confidence - a.confidence,
    novel: (a, b) => b.novelty - a.novelty || a.confidence - b.confidence,
    label: (a, b) => classes.indexOf(a.label) - classes.indexOf(b.label) || a.confidence - b.confidence,
    name: (a, b) => (a.uri < b.uri ? -1 : a.uri > b.uri ? 1 : 0),
  };

  function refilter() {
    const current = view[at];
    const [label, reason, state] = ["by-label", "by-reason", "by-state"].map((id) => find(id).value);
    const decided = decisions();
    view = queue
      .filter((entry) => !label || entry.label === classes[Number(label) - 1])
      .filter((entry) => !reason || entry.reason === reason)
      .filter((entry) => !state || decided.has(entry.uri) === (state === "done"))
      .sort(ORDERS[find("sort").value]);
    at = Math.max(0, view.indexOf(current));
    drawStrip();
    draw("");
  }

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const spoken = (label) => (label === NONE ? "none of the classes" : label);

  function picture(entry, alt) {
    if (entry.picture) return element("img", "", { src: entry.picture, alt, decoding: "async" });
    const gone = element("div", "", { class: "gone" });
    gone.append(element("span", `can't be shown: ${entry.why}`));
    return gone;
  }

  function drawStrip() {
    const decided = decisions();
    find("strip").replaceChildren(
      ...view.map((entry, i) => {
        const item = element("li");
        const button = element("button", "", { type: "button" });
        button.append(entry.picture ? picture(entry, "") : element("span", "?"));
        button.addEventListener("click", () => move(i));
        item.append(button);
        markItem(button, entry, i, decided);
        return item;
      }),
    );
  }

  function markItem(button, entry, i, decided) {
    const done = decided.has(entry.uri);
    button.classList.toggle("decided", done);
    button.tabIndex = i === at ? 0 : -1; // one stop for Tab; the keys move along
    if (i === at) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
    const what = `${i + 1}: ${entry.label}, ${percent(entry.confidence)}, ${entry.reason}`;
    button.setAttribute("aria-label", done ? `${what}, decided: ${spoken(decided.get(entry.uri))}` : what);
  }

  // A disabled button would keep the focus, and with it the keys.
  function disable(id, isDisabled) {
    if (isDisabled && document.activeElement === find(id)) find("stage").focus();
    find(id).disabled = isDisabled;
  }

  // How many of `entries` were decided in which way.
  function told(entries, decided) {
    const labels = entries.filter(({ uri }) => decided.has(uri)).map(({ uri, label }) => [label, decided.get(uri)]);
    const confirmed = labels.filter(([label, said]) => said === label).length;
    const none = labels.filter(([, said]) => said === NONE).length;
    const changed = labels.length - confirmed - none;
    return `${labels.length} of ${entries.length} decided: ${confirmed} confirmed, ${changed} changed, ${none} none of the classes`;
  }

  // Shows the photograph at `at`, or the end; `before` is said before it.
  function draw(before) {
    const decided = decisions();
    const entry = view[at];
    [...find("strip").children].forEach((item, i) => markItem(item.firstChild, view[i], i, decided));
    disable("previous", at <= 0);
    disable("next", at >= view.length);
    disable("undo", !log.some(isHere));
    const count = decided.size;
    find("decided").textContent = `${count} of ${queue.length}`;
    find("counter").textContent = `${count} of ${queue.length} decided`;
    find("progress").value = count;
    find("export").disabled = !count;
    find("export").textContent = count ? `Export ${count} correction${count > 1 ? "s" : ""}` : "Export corrections";
    find("kept").textContent = kept
      ? "Decisions are kept in this browser."
      : "This browser keeps nothing for this page: export before you close it.";
    if (!entry) {
      drawEnd(before, decided);
      return;
    }
    const novel = `, novelty ${entry.novelty.toFixed(2)}`;
    const choice = decided.has(entry.uri) ? ` Decided: ${spoken(decided.get(entry.uri))}.` : "";
    find("status").textContent =
      `${before}${at + 1} of ${view.length}: ${entry.label}, ${percent(entry.confidence)}, ` +
      `${entry.reason}${novel}.${choice}`;
    find("stage").replaceChildren(picture(entry, `Photograph ${at + 1}, labelled ${entry.label}`));
    const hint = element("span", "", { class: "hint" });
    hint.append(element("kbd", "Enter"), " confirms.");
    find("ask").replaceChildren(element("bdi", entry.label), "? ", hint);
    drawFacts(entry);
    drawChoices(entry, decided);
    const item = find("strip").children[at];
    const strip = find("strip");
    strip.scrollLeft = item.offsetLeft - strip.offsetLeft - (strip.clientWidth - item.clientWidth) / 2;
  }

  function drawEnd(before, decided) {
    const wasChoosing = document.activeElement?.closest?.("#choices");
    for (const id of ["facts", "choices", "ask"]) find(id).replaceChildren();
    if (!view.length) {
      find("stage").replaceChildren();
      find("status").textContent = `${before}No photograph passes the filters.`;
    } else {
      find("stage").replaceChildren(element("p", "The end of the queue", { class: "end" }));
      find("status").textContent = `${before}The end. ${told(view, decided)}.`;
      const open = view.filter(({ uri }) => !decided.has(uri));
      if (open.length) {
        const back = element("button", `Go to the ${open.length} not decided`, { type: "button" });
        back.addEventListener("click", () => move(view.indexOf(open[0])));
        find("choices").append(back);
      }
      if (decided.size) {
        const button = element("button", find("export").textContent, { type: "button", class: "main-button" });
        button.addEventListener("click", exportCorrections);
        find("choices").append(button);
      }
    }
    if (wasChoosing) find("stage").focus();
  }

  // Where the original can be opened: a page on a server may not open files of a disk.
  function original(uri) {
    if (/^https?:/.test(uri)) return uri;
    if (!uri.startsWith("/") || location.protocol !== "file:") return null;
    return `file://${uri.split("/").map(encodeURIComponent).join("/")}`;
  }

  function drawFacts(entry) {
    const file = element("p", "", { class: "uri" });
    const path = element("bdi", entry.uri);
    const href = original(entry.uri);
    const link = href && element("a", "", { href, target: "_blank", rel: "noopener noreferrer", title: "Open the original" });
    if (link) link.append(path);
    file.append(link || path);
    find("facts").replaceChildren(file);
  }

  // The classes that have buttons: all, or with more than nine the likeliest of this photograph.
  const numbered = (entry) =>
    classes.length <= NUMBERED ? classes : entry.top.map(([label]) => label).slice(0, NUMBERED);

  function drawChoices(entry, decided) {
    const focused = document.activeElement?.closest?.("#choices [data-key]")?.dataset.key;
    const chosen = decided.get(entry.uri);
    const likely = new Map(entry.top);
    const choice = (label, name, key) => {
      const button = element("button", "", {
        type: "button",
        "aria-pressed": String(chosen === label),
        "data-key": key,
      });
      button.append(element("kbd", key, { "aria-hidden": "true" }), element("bdi", name));
      if (likely.has(label)) button.append(element("span", percent(likely.get(label)), { class: "share" }));
      button.classList.toggle("suggested", label === entry.label);
      button.addEventListener("click", () => decide(label));
      return button;
    };
    const buttons = numbered(entry).map((label, i) => choice(label, label, String(i + 1)));
    if (classes.length > NUMBERED) {
      const others = element("select", "", { "aria-label": "another class", "data-key": "other" });
      others.append(element("option", "another class…", { value: "" }));
      classes.forEach((label, i) => others.append(element("option", label, { value: String(i + 1) })));
      if (chosen && !numbered(entry).includes(chosen)) others.value = String(classes.indexOf(chosen) + 1);
      // A closed list changes with each arrow key: only the button decides.
      const choose = element("button", "Choose", { type: "button", "data-key": "other" });
      choose.addEventListener("click", () => others.value && decide(classes[Number(others.value) - 1]));
      buttons.push(others, choose);
    }
    buttons.push(choice(NONE, "none of the classes", "0"));
    find("choices").replaceChildren(...buttons);
    // A button keeps the focus for the next photograph; the list of classes would swallow the keys.
    const again = focused !== "other" && find("choices").querySelector(`[data-key="${focused}"]`);
    if (focused) (again || find("stage")).focus();
  }

  function move(to, before = "") {
    at = Math.max(0, Math.min(to, view.length));
    draw(before);
  }

  function decide(label) {
    const entry = view[at];
    if (!entry) return;
    log.push([entry.uri, label]);
    keep();
    const said = `Decided ${spoken(label)}. `;
    if (find("by-state").value) {
      // It may have left the view, and then the next one stands in its place.
      const before = at;
      refilter();
      const now = view.indexOf(entry);
      move(now < 0 ? before : now + 1, said);
      return;
    }
    move(at + 1, said);
  }

  function undo() {
    const last = log.findLastIndex(isHere);
    if (last < 0) return;
    const [[uri, label]] = log.splice(last, 1);
    saved = Math.min(saved, log.length);
    keep();
    const entry = byUri.get(uri);
    if (find("by-state").value) refilter();
    const place = view.indexOf(entry);
    move(place < 0 ? at : place, `Undone: ${spoken(label)}. `);
  }

  const field = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

  function exportCorrections() {
    const rows = [...decisions()].map(([uri, label]) => `${field(uri)},${field(label)}\n`);
    const link = element("a", "", { download: "corrections.csv" });
    link.href = URL.createObjectURL(new Blob(["uri,label\n", ...rows], { type: "text/csv" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    saved = log.length;
    find("status").textContent = `Exported ${rows.length} corrections as corrections.csv.`;
  }

  const isInSight = () => {
    const { top, bottom } = find("stage").getBoundingClientRect();
    return bottom > 60 && top < innerHeight - 60;
  };

  // Whether what has the focus has a use of its own for `key`. A list of choices goes by its arrows
  // and by letters; digits decide.
  function isTaken(focused, key) {
    if (focused.closest("input, textarea")) return true;
    if (focused.closest("select")) return !/^[0-9]$/.test(key);
    if (focused.closest(".scroll")) return key === " " || key.startsWith("arrow");
    return (key === " " || key === "enter") && Boolean(focused.closest("a, button, summary"));
  }

  function pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || find("help").open) return;
    if (!find("keys-on").checked) return;
    const key = event.key.toLowerCase();
    if (key === "escape" && event.target.closest("#review-app")) find("stage").focus();
    if (isTaken(event.target, key)) return;
    const confirms = key === "enter" || key === " ";
    if (confirms && !isInSight()) return; // Space scrolls the rest of the page
    const actions = {
      j: () => move(at + 1),
      arrowright: () => move(at + 1),
      k: () => move(at - 1),
      arrowleft: () => move(at - 1),
      u: undo,
      x: () => decide(NONE),
      0: () => decide(NONE),
      "?": () => find("help").showModal(),
    };
    let label = view[at] && /^[1-9]$/.test(key) ? numbered(view[at])[Number(key) - 1] : undefined;
    if (confirms) label = view[at]?.label;
    const action = actions[key] ?? (label === undefined ? null : () => decide(label));
    if (!action) return;
    event.preventDefault();
    if (event.repeat && !/^(arrow|j$|k$)/.test(key)) return; // a key held down decides once
    const onStrip = event.target.closest("#strip");
    action();
    if (onStrip) find("strip").querySelector("[aria-current]")?.focus();
    if (!isInSight()) find("review").scrollIntoView();
  }

  const options = (id, entries) => {
    for (const [value, text] of entries) find(id).append(element("option", text, { value }));
  };
  const present = new Set(queue.map((entry) => entry.label));
  options(
    "by-label",
    classes.map((label, i) => [String(i + 1), label]).filter(([, label]) => present.has(label)),
  );
  options("by-reason", [...new Set(queue.map((entry) => entry.reason))].sort().map((r) => [r, r]));
  // Who chooses by a pointer has the keys for the photograph again; who moves by keys stays there.
  let byPointer = false;
  addEventListener("pointerdown", () => (byPointer = true), true);
  addEventListener("keydown", () => (byPointer = false), true);
  const backToPhotograph = () => byPointer && find("stage").focus({ preventScroll: true });
  for (const id of ["by-label", "by-reason", "by-state", "sort"]) {
    find(id).addEventListener("change", () => {
      refilter();
      backToPhotograph();
    });
  }
  find("review-app").addEventListener("click", (event) => {
    if (!find("help").open && event.target.closest("button")) backToPhotograph();
  });
  find("previous").addEventListener("click", () => move(at - 1));
  find("next").addEventListener("click", () => move(at + 1));
  find("undo").addEventListener("click", undo);
  find("export").addEventListener("click", exportCorrections);
  find("help-button").addEventListener("click", () => find("help").showModal());
  find("help-close").addEventListener("click", () => find("help").close());
  document.addEventListener("keydown", pressed);
  addEventListener("beforeunload", (event) => {
    if (!kept && log.length > saved) event.preventDefault();
  });
  find("review-app").hidden = false;
  refilter();
  const decided = decisions();
  const open = view.findIndex(({ uri }) => !decided.has(uri));
  move(open < 0 ? view.length : open); // goes on where it was left
})();
