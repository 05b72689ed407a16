// flowerray review: the page. Views are chosen by the address's hash, so that a reload and the
// browser's own back button go where they should.
import { html, render, useEffect, useRef, useState } from "./vendor/htm/standalone.module.js";
import { Grid } from "./grid.js";
import { PileMap } from "./map.js";
import { One } from "./photograph.js";
import { Outbox, ask, link, listen, patiently, read, write } from "./server.js";
import { Start } from "./start.js";
import { Teach } from "./teach.js";

const WHO = "flowerray-reviewer";
const LOOK = 20_000; // ms between looks at the pile, which also tell the server that one is here
const HELD = 100_000; // ms that photographs stay a silent reviewer's, a little less than the server's
const RECENT = 3;

function routeOf(hash) {
  const [view = "", ...rest] = hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  return { view, rest };
}

function App() {
  const [pile, setPile] = useState(null);
  const [who, setWho] = useState(() => read(WHO));
  const [hash, setHash] = useState(location.hash);
  const [error, setError] = useState(null);
  const [said, setSaid] = useState("");
  const [woken, setWoken] = useState(0);
  const [, heard] = useState(0);
  const own = useRef({ log: [], named: [], recent: [], outbox: null, holding: null, selection: null }).current;

  // New names come after those known so far, so that each keeps its number.
  function name(label, { classes, none } = pile) {
    if (label !== none && !classes.includes(label) && !own.named.includes(label)) own.named.push(label);
  }
  async function refresh() {
    try {
      const now = await patiently(`api/pile?${new URLSearchParams({ who: who ?? "" })}`);
      own.outbox ??= new Outbox(now.out);
      for (const label of now.new_classes) name(label, now);
      setPile(now);
    } catch (failure) {
      setError(failure.message);
    }
  }
  // What lies before the reviewer stays theirs, however long they look.
  function keep() {
    const { mode, ids } = own.holding ?? {};
    const held = ids?.() ?? [];
    if (held.length) ask("api/next", { who, mode, number: 0, held, grid: false }).catch(() => {});
  }
  useEffect(() => {
    refresh();
    const timer = setInterval(() => document.hidden || (refresh(), keep()), LOOK);
    return () => clearInterval(timer);
  }, [who]);
  useEffect(() => listen(() => heard((n) => n + 1)), []);
  useEffect(() => {
    // After a long absence others may have what lay here: the view begins anew.
    let since = null;
    const looked = () => {
      if (!document.hidden && since !== null && Date.now() - since > HELD) setWoken((n) => n + 1);
      since = document.hidden ? Date.now() : null;
    };
    document.addEventListener("visibilitychange", looked);
    return () => document.removeEventListener("visibilitychange", looked);
  }, []);
  useEffect(() => {
    const moved = () => setHash(location.hash);
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    // What was handed out and isn't decided is free for others.
    const gone = () =>
      who && navigator.sendBeacon("api/release", new Blob([JSON.stringify({ who })], { type: "application/json" }));
    addEventListener("pagehide", gone);
    return () => removeEventListener("pagehide", gone);
  }, [who]);

  if (!pile)
    return html`<p class="opening" role=${error || link.away ? "alert" : "status"}>
      ${error ?? (link.away ? "The server doesn't answer. The page goes on as soon as it does." : "Opening the pile …")}
    </p>`;

  const session = {
    pile,
    who,
    link,
    error,
    outbox: own.outbox,
    recent: own.recent,
    names: [...pile.classes, ...own.named],
    mode: (name) => pile.modes.find((mode) => mode.name === name) ?? { name, title: name, left: 0, why_not: null },
    refresh,
    hold: (mode, ids) => (own.holding = { mode, ids }),
    complain: setError,
    say: setSaid,
    open: (to) => (location.hash = to),
    moreLike: (card) => (pile.like ? setError(pile.like) : (location.hash = `#/grid/like/${encodeURIComponent(card.id)}`)),
    select(ids) {
      own.selection = ids;
      location.hash = "#/grid/selection";
    },
    call(name) {
      write(WHO, name);
      setWho(name);
    },
    // Notes a decision and sends it on its way; the server's answer, once it is there.
    decide(cards, label, mode) {
      own.log.push({ cards, label });
      if (label !== pile.none && !own.recent.includes(label)) own.recent = [...own.recent, label].slice(-RECENT);
      name(label);
      return own.outbox.post("api/decide", { who, ids: cards.map(({ id }) => id), label, mode });
    },
    // Takes the last decision back: its cards where they are at hand, and the server's answer.
    undo() {
      const last = own.log.pop();
      const answered = last && own.outbox.takeBack() ? null : own.outbox.post("api/undo", { who });
      return { cards: last?.cards ?? null, answered };
    },
    discard() {
      own.log = own.log.filter(({ cards }) => cards.every(({ id }) => !link.refused.entry.body.ids?.includes(id)));
      own.outbox.goOn({ without: true });
    },
  };
  // A new round begins every view anew, but for the one that tells of it.
  return html`
    <${View} key=${`${hash} ${who} ${woken} ${hash === "#/teach" ? "" : pile.round}`} session=${session} hash=${hash} selection=${own.selection} />
    <p class="hidden-words" aria-live="polite">${said}</p>
  `;
}

function View({ session, hash, selection }) {
  const { view, rest } = routeOf(hash);
  const [name, of = null] = rest;
  const props = { session };
  useEffect(() => {
    scrollTo(0, 0);
  }, []);
  if (!session.who) return html`<${Start} ...${props} />`;
  if (view === "one" && name) return html`<${One} ...${props} mode=${name} of=${of} />`;
  if (view === "map") return html`<${PileMap} ...${props} />`;
  if (view === "teach") return html`<${Teach} ...${props} />`;
  if (view === "grid" && name) {
    const scope = { mode: name, of: null, like: null, ids: null };
    let { title } = session.mode(name);
    if (name === "class") {
      scope.of = of ?? session.pile.classes[0];
      title = scope.of;
    } else if (name === "like") {
      // An identity is a number or a word: what the server gave is what it gets.
      Object.assign(scope, { mode: "everything", like: /^\d+$/.test(of) ? Number(of) : of });
      title = "More like this";
    } else if (name === "selection") {
      if (!selection) return html`<${PileMap} ...${props} />`;
      Object.assign(scope, { mode: "everything", ids: selection });
      title = "Selected on the map";
    }
    return html`<${Grid} ...${props} scope=${scope} title=${title} />`;
  }
  return html`<${Start} ...${props} />`;
}

render(html`<${App} />`, document.getElementById("app"));
