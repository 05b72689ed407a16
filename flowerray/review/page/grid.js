// Many photographs at once: selected by click, drag or keys, decided by one key.
import { html, useEffect, useReducer, useRef, useState } from "./vendor/htm/standalone.module.js";
import { Frame } from "./frame.js";
import { useKeys } from "./keys.js";
import { Badges, Dialog, Key, NONE, Typing, badgesOf, count, many, percent, spoken } from "./parts.js";
import { useJudging } from "./photograph.js";
import { address } from "./pictures.js";
import { patiently } from "./server.js";

const PAGE = 96; // photographs
const THUMBNAIL = 256; // pixels
const NUMBERED = 9;
const DRAG = 6; // pixels, from which on a press is a rubber band

const KEYS = [
  ["← ↑ → ↓", "to another photograph"],
  ["x Space", "select it, or not"],
  ["Shift+← → ↑ ↓", "select on the way"],
  ["a", "select the whole page, or nothing"],
  ["Escape", "select nothing"],
  ["1 … 9", "the selected are of that class"],
  ["0", "the selected are none of these"],
  ["n", "the selected are of a class by typing its name"],
  ["Enter", "the selected are what they are labelled, where they agree"],
  ["o", "open one large (or double click)"],
  ["m", "more like this"],
  ["u", "undo the last decision"],
  ["PageDown PageUp", "next and previous page"],
  ["?", "these keys"],
];

// What is shown of the pile, page by page. `scope` is {mode, of, like, ids}.
class Pages {
  constructor(session, scope, changed) {
    Object.assign(this, { session, scope, changed });
    this.cards = [];
    this.selected = new Set();
    this.at = 0; // the photograph that keys act on
    this.anchor = 0; // where a range begins
    this.starts = [null]; // cursors of the pages so far, the shown one's last
    this.after = null;
    this.left = null;
    this.isReady = false;
    this.closed = false;
    session.hold(scope.mode, () => this.cards.filter(({ decided }) => !decided).map(({ id }) => id));
    this.load();
  }

  async load() {
    const { session, scope } = this;
    this.isReady = false;
    this.changed();
    try {
      const answer = await patiently(
        "api/next",
        {
          who: session.who,
          mode: scope.mode,
          number: PAGE,
          class: scope.of,
          like: scope.like,
          ids: scope.ids,
          held: session.outbox.ids(),
          grid: true,
          after: this.starts.at(-1),
        },
        () => this.closed,
      );
      if (!answer || this.closed) return;
      this.cards = answer.cards;
      // A page that isn't full is the last.
      this.after = answer.cards.length === PAGE ? answer.cursor : null;
      this.left = answer.left;
    } catch (failure) {
      session.complain(failure.message);
    }
    this.selected.clear();
    this.at = this.anchor = 0;
    this.isReady = true;
    this.changed();
  }

  turn(forward) {
    if (!this.isReady || (forward ? this.after === null : this.starts.length < 2)) return;
    if (forward) this.starts.push(this.after);
    else this.starts.pop();
    this.load();
    scrollTo(0, 0);
  }

  get chosen() {
    return this.cards.filter(({ id }) => this.selected.has(id));
  }
  // The label that all the selected have, or null.
  get common() {
    const labels = new Set(this.chosen.map(({ blind, label }) => (blind ? null : label)));
    return labels.size === 1 ? [...labels][0] : null;
  }

  toggle(i) {
    const { id } = this.cards[i];
    if (!this.selected.delete(id)) this.selected.add(id);
    this.at = this.anchor = i;
    this.changed();
  }
  // Selects from the anchor to `i`.
  extend(i) {
    const [first, last] = [this.anchor, i].sort((a, b) => a - b);
    for (const { id } of this.cards.slice(first, last + 1)) this.selected.add(id);
    this.at = i;
    this.changed();
  }
  move(by, isExtending) {
    const to = this.at + by;
    if (to < 0 || to >= this.cards.length) return;
    if (isExtending) return this.extend(to);
    this.at = this.anchor = to;
    this.changed();
  }
  all() {
    const isAll = this.selected.size === this.cards.length;
    this.selected = new Set(isAll ? [] : this.cards.map(({ id }) => id));
    this.changed();
  }
  none() {
    this.selected.clear();
    this.changed();
  }

  decide(cards, label) {
    const { session } = this;
    const isNew = cards.filter(({ decided }) => !decided).length;
    for (const card of cards) card.decided = { label, who: session.who, when: null };
    this.left = Math.max(0, this.left - isNew);
    this.selected.clear();
    session.decide(cards, label, this.scope.mode);
    session.say(`${many(cards.length, "photograph")} decided: ${spoken(label)}.`);
    this.changed();
  }
  async undo() {
    const { cards, answered } = this.session.undo();
    const back = cards ?? (await answered)?.cards ?? [];
    const ids = new Set(back.map(({ id }) => id));
    for (const card of this.cards) if (ids.has(card.id)) card.decided = null;
    // What the server says of them then: an earlier decision may stand again.
    answered?.then((answer) => {
      for (const now of answer?.cards ?? []) {
        const card = this.cards.find(({ id }) => id === now.id);
        if (card) card.decided = now.decided;
      }
      this.changed();
    });
    if (this.left !== null) this.left += ids.size;
    this.selected = new Set(this.cards.filter(({ id }) => ids.has(id)).map(({ id }) => id));
    this.session.say(ids.size ? `Undone: ${many(ids.size, "photograph")} to decide again.` : "Nothing is left to undo.");
    this.changed();
  }
  close() {
    this.closed = true;
  }
}

const spokenOf = (card) =>
  [
    card.blind || !card.label ? card.name : `${card.label}, ${percent(card.confidence)}`,
    ...badgesOf(card).map(({ text }) => text),
  ].join(", ");

function Tile({ card, i, isActive, isSelected }) {
  const [why, setWhy] = useState(null);
  return html`<div
    id=${`tile-${i}`}
    class=${`tile ${isActive ? "active" : ""} ${card.decided ? "decided" : ""}`}
    role="option"
    aria-selected=${String(isSelected)}
    aria-label=${spokenOf(card)}
    data-i=${i}
    data-id=${card.id}
  >
    ${why === null
      ? html`<img src=${address(card.id, THUMBNAIL)} alt="" decoding="async" draggable=${false} onError=${() => setWhy("can't be shown")} />`
      : html`<span class="gone">${card.name} ${why}</span>`}
    <span class="tick" aria-hidden="true">✓</span>
    <span class="caption">
      <bdi>${card.blind || !card.label ? card.name : card.label}</bdi>
      ${!card.blind && card.confidence !== null && html`<span class="share">${percent(card.confidence)}</span>`}
    </span>
    <${Badges} card=${card} />
  </div>`;
}

// The rubber band over the tiles: a press that moves selects what it covers.
function useBand(list, pages) {
  const [band, setBand] = useState(null);
  const start = useRef(null);
  const at = (event) => {
    const { left, top } = list.current.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const pressed = (event) => {
    if (event.button !== 0 || event.pointerType === "touch") return;
    const keeps = event.shiftKey || event.ctrlKey || event.metaKey;
    start.current = { ...at(event), before: keeps ? new Set(pages.current.selected) : new Set(), moved: false };
  };
  const moved = (event) => {
    const from = start.current;
    if (!from) return;
    const to = at(event);
    if (!from.moved && Math.hypot(to.x - from.x, to.y - from.y) < DRAG) return;
    if (!from.moved) list.current.setPointerCapture(event.pointerId);
    from.moved = true;
    const box = {
      left: Math.min(from.x, to.x),
      top: Math.min(from.y, to.y),
      right: Math.max(from.x, to.x),
      bottom: Math.max(from.y, to.y),
    };
    setBand(box);
    const touched = [...list.current.querySelectorAll(".tile")].filter(
      (tile) =>
        tile.offsetLeft < box.right &&
        tile.offsetLeft + tile.offsetWidth > box.left &&
        tile.offsetTop < box.bottom &&
        tile.offsetTop + tile.offsetHeight > box.top,
    );
    pages.current.selected = new Set([...from.before, ...touched.map((tile) => pages.current.cards[tile.dataset.i].id)]);
    pages.current.changed();
    if (event.clientY > innerHeight - 80) scrollBy(0, 16);
    if (event.clientY < 80) scrollBy(0, -16);
  };
  // Whether the press was a band, and so isn't a click.
  const released = () => {
    const wasBand = Boolean(start.current?.moved);
    start.current = null;
    setBand(null);
    return wasBand;
  };
  return { band, pressed, moved, released };
}

function Large({ session, pages, onLeave }) {
  const card = pages.cards[pages.at];
  const judging = useJudging(session, card, {
    decided: card?.decided?.label,
    decide: (label) => {
      pages.decide([card], label);
      if (pages.at < pages.cards.length - 1) pages.move(1);
    },
    moves: html`
      <button type="button" onClick=${() => pages.move(-1)}><${Key}>←<//>Previous</button>
      <button type="button" onClick=${() => pages.move(1)}>Next<${Key}>→<//></button>
      <button type="button" onClick=${onLeave}>Close</button>
    `,
  });
  return html`<${Dialog}
    label=${card.name}
    className="large"
    keys=${{
      arrowleft: () => pages.move(-1),
      arrowright: () => pages.move(1),
      u: () => pages.undo(),
      o: onLeave,
      escape: onLeave,
      ...judging.keys,
    }}
    onLeave=${onLeave}
  >
    ${judging.view}
  <//>`;
}

export function Grid({ session, scope, title }) {
  const [, redraw] = useReducer((n) => n + 1, 0);
  const [isOpen, setOpen] = useState(false);
  const [isTyping, setTyping] = useState(false);
  const [hint, setHint] = useState(null);
  const pages = useRef();
  const list = useRef();
  if (!pages.current) pages.current = new Pages(session, scope, redraw);
  const shown = pages.current;
  const { band, pressed, moved, released } = useBand(list, pages);
  const wasBand = useRef(false);
  useEffect(() => () => pages.current.close(), []);
  useEffect(() => {
    if (shown.isReady) list.current?.focus({ preventScroll: true });
  }, [shown.isReady]);
  useEffect(() => {
    document.getElementById(`tile-${shown.at}`)?.scrollIntoView({ block: "nearest" });
  }, [shown.at]);

  useEffect(() => setHint(null), [shown.selected.size]);

  const digits = session.names.length <= NUMBERED ? session.names : likeliest();
  function likeliest() {
    const seen = (shown.selected.size ? shown.chosen : shown.cards).map(({ label }) => label);
    return [...new Set([scope.of, ...session.recent, ...seen, ...session.names].filter(Boolean))].slice(0, NUMBERED);
  }
  const decide = (label) => {
    setTyping(false);
    list.current?.focus({ preventScroll: true });
    if (!shown.selected.size) return setHint("Nothing is selected: click photographs, or x selects one and a all.");
    setHint(null);
    shown.decide(shown.chosen, label);
  };
  const name = () => (shown.selected.size ? setTyping(true) : decide(null));
  const yes = () => {
    if (!shown.selected.size) return setHint("Nothing is selected, so nothing is decided: o opens one large.");
    if (!shown.common) return setHint("The selected have different labels: choose one by its number.");
    decide(shown.common);
  };
  const columns = () => {
    const tiles = [...(list.current?.querySelectorAll(".tile") ?? [])];
    const second = tiles.findIndex((tile) => tile.offsetTop > tiles[0].offsetTop);
    return second < 0 ? Math.max(1, tiles.length) : second;
  };
  const steps = { arrowleft: () => -1, arrowright: () => 1, arrowup: () => -columns(), arrowdown: () => columns() };
  const moves = Object.fromEntries(
    Object.entries(steps).flatMap(([key, by]) => [
      [key, () => shown.move(by(), false)],
      [`shift+${key}`, () => shown.move(by(), true)],
    ]),
  );
  const isAny = shown.cards.length > 0;
  useKeys({
    ...(isAny && {
      ...moves,
      x: () => shown.toggle(shown.at),
      space: () => shown.toggle(shown.at),
      a: () => shown.all(),
      escape: () => shown.none(),
      enter: yes,
      o: () => setOpen(true),
      m: () => session.moreLike(shown.cards[shown.at]),
      0: () => decide(NONE),
      n: name,
      ...Object.fromEntries(digits.map((label, i) => [String(i + 1), () => decide(label)])),
    }),
    u: () => shown.undo(),
    pagedown: () => shown.turn(true),
    pageup: () => shown.turn(false),
  });
  const tileOf = (event) => event.target.closest(".tile")?.dataset.i;
  function clicked(event) {
    const i = tileOf(event);
    if (wasBand.current || i === undefined) return;
    setHint(null);
    if (event.shiftKey) shown.extend(Number(i));
    else shown.toggle(Number(i));
  }
  function opened(event) {
    const i = tileOf(event);
    if (i === undefined) return;
    shown.at = Number(i);
    setOpen(true);
  }

  const number = shown.selected.size;
  const single = scope.mode !== "everything" && !scope.like && !scope.ids;
  return html`<${Frame}
    session=${session}
    title=${title}
    keys=${KEYS}
    className="gridded"
    aside=${shown.left !== null && html`<span class="left"><b>${count(shown.left)}</b> left</span>`}
  >
    <div class="toolbar">
      <h1 class="hidden-words">${title}</h1>
      ${scope.mode === "class" && html`<label>Class
        <select value=${scope.of} onChange=${(event) => session.open(`#/grid/class/${encodeURIComponent(event.currentTarget.value)}`)}>
          ${session.pile.classes.map((label) => html`<option value=${label}>${label}</option>`)}
        </select>
      </label>`}
      ${single && html`<a class="button" href=${`#/one/${scope.of ? `class/${encodeURIComponent(scope.of)}` : scope.mode}`}>One by one</a>`}
      <span class="space"></span>
      <button type="button" disabled=${!isAny} onClick=${() => shown.all()}><${Key}>a<//>${number && number === shown.cards.length ? "Select nothing" : "Select all"}</button>
      <button type="button" disabled=${!isAny} onClick=${() => setOpen(true)}><${Key}>o<//>Open</button>
      <button type="button" disabled=${!isAny || Boolean(session.pile.like)} title=${session.pile.like ?? ""} onClick=${() => session.moreLike(shown.cards[shown.at])}><${Key}>m<//>More like this</button>
      <button type="button" onClick=${() => shown.undo()}><${Key}>u<//>Undo</button>
    </div>
    ${isAny && html`<div
      ref=${list}
      class="tiles"
      role="listbox"
      tabindex="0"
      aria-multiselectable="true"
      aria-label="Photographs"
      aria-activedescendant=${`tile-${shown.at}`}
      aria-busy=${String(!shown.isReady)}
      onPointerDown=${(event) => {
        wasBand.current = false;
        pressed(event);
      }}
      onPointerMove=${moved}
      onPointerUp=${() => (wasBand.current = released())}
      onPointerCancel=${released}
      onClick=${clicked}
      onDblClick=${opened}
    >
      ${shown.cards.map((card, i) => html`<${Tile}
        key=${card.id}
        card=${card}
        i=${i}
        isActive=${i === shown.at}
        isSelected=${shown.selected.has(card.id)}
      />`)}
      ${band && html`<div class="band" style=${{ left: `${band.left}px`, top: `${band.top}px`, width: `${band.right - band.left}px`, height: `${band.bottom - band.top}px` }}></div>`}
    </div>`}
    ${!isAny && html`<p class="opening" role="status">${shown.isReady ? "Nothing is left here." : "Looking for photographs …"}</p>`}
    <div class="pager">
      <button type="button" disabled=${shown.starts.length < 2} onClick=${() => shown.turn(false)}>Previous page</button>
      <span class="soft">page ${count(shown.starts.length)}</span>
      <button type="button" disabled=${shown.after === null} onClick=${() => shown.turn(true)}>Next page</button>
    </div>
    ${isAny && html`<div class="deciding" role="group" aria-label="Decide the selected">
      <p class="selected" role="status">${hint ?? (number ? html`<b>${count(number)}</b> selected` : "Select photographs: click, shift-click or drag.")}</p>
      ${isTyping
        ? html`<${Typing} names=${session.names} mayBeNew onPick=${decide} onLeave=${() => {
            setTyping(false);
            list.current?.focus({ preventScroll: true });
          }} />`
        : html`<div class="row scrolling">
            ${number > 0 && shown.common && html`<button type="button" class="main-button" aria-keyshortcuts="Enter" onClick=${yes}>
              <${Key}>⏎<//><span>${number > 1 ? `All ${count(number)}: ` : ""}<bdi>${shown.common}</bdi></span>
            </button>`}
            ${digits.map((label, i) => html`<button
              type="button"
              key=${label}
              aria-disabled=${String(!number)}
              aria-keyshortcuts=${String(i + 1)}
              onClick=${() => decide(label)}
            ><${Key}>${i + 1}<//><bdi>${label}</bdi></button>`)}
            <button type="button" aria-disabled=${String(!number)} aria-keyshortcuts="0" onClick=${() => decide(NONE)}><${Key}>0<//>${spoken(NONE)}</button>
            <button type="button" aria-disabled=${String(!number)} aria-keyshortcuts="n" onClick=${name}><${Key}>n<//>another …</button>
          </div>`}
    </div>`}
    ${isOpen && shown.cards[shown.at] && html`<${Large} session=${session} pages=${shown} onLeave=${() => setOpen(false)} />`}
  <//>`;
}
