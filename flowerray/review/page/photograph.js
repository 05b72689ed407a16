// One photograph, large, and the question what it is.
import { html, useEffect, useLayoutEffect, useReducer, useRef, useState } from "./vendor/htm/standalone.module.js";
import { Deck } from "./deck.js";
import { End } from "./end.js";
import { Frame } from "./frame.js";
import { useKeys } from "./keys.js";
import { Badges, Key, NONE, Typing, count, many, noveltyWords, percent, spoken } from "./parts.js";
import { picture, screenSide, trouble } from "./pictures.js";

const NUMBERED = 9; // classes that a digit chooses
const CLOSEST = 12; // of the zoom

export const KEYS = [
  ["Enter Space", "yes, the suggestion is right"],
  ["1 … 9", "the class of that number"],
  ["0", "none of these"],
  ["n", "another class, by typing its name"],
  ["/", "find a class"],
  ["u", "undo the last decision"],
  ["← →", "back, and on without deciding"],
  ["z", "zoom, then arrows or dragging move"],
  ["m", "more like this"],
  ["?", "these keys"],
];

// The classes that digits choose: all, or where they are more, the likeliest of this photograph
// and those that this reviewer chose last.
function numbered(session, card) {
  const all = session.names;
  if (all.length <= NUMBERED) return all;
  const likely = (card.top ?? []).map(({ label }) => label);
  return [...new Set([...likely.slice(0, 6), ...session.recent, ...likely, ...all])].slice(0, NUMBERED);
}

// The photograph in the middle of its stage, which zooms at a click. `zoom` is {scale, x, y}, the
// scale relative to the whole and the middle's way in pixels.
function Stage({ card, zoom, setZoom }) {
  const stage = useRef();
  const sheet = useRef();
  const drag = useRef(null);
  const [failed, setFailed] = useState(null);
  const [isLoading, setLoading] = useState(false);
  const isZoomed = zoom.scale > 1;

  useLayoutEffect(() => {
    let isShown = true;
    setFailed(null);
    const show = (side) => {
      const image = picture(card.id, side);
      const put = () => {
        if (!isShown) return;
        image.alt = card.blind || !card.label ? `${card.name}` : `${card.name}, labelled ${card.label}`;
        sheet.current?.replaceChildren(image);
        setLoading(false);
      };
      image.ready.then(put, async () => {
        const why = await trouble(card.id, side);
        if (!isShown) return;
        setLoading(false);
        if (side) setFailed(why);
      });
      return { image, put };
    };
    const { image, put } = show(screenSide());
    // What was decoded ahead is shown in this very frame.
    if (image.complete && image.naturalWidth) put();
    else {
      setLoading(true);
      sheet.current?.replaceChildren();
    }
    if (isZoomed) show(null);
    return () => {
      isShown = false;
    };
  }, [card.id, isZoomed]);

  function clamp({ scale, x, y }) {
    const { width, height } = stage.current.getBoundingClientRect();
    const within = (way, length) => Math.max(-1, Math.min(1, way / ((length * (scale - 1)) / 2 || 1))) * ((length * (scale - 1)) / 2);
    return scale <= 1 ? { scale: 1, x: 0, y: 0 } : { scale, x: within(x, width), y: within(y, height) };
  }
  // Zooms so that what is under the pointer stays there.
  function zoomAt(event, scale) {
    const { left, top, width, height } = stage.current.getBoundingClientRect();
    const x = event.clientX - left - width / 2;
    const y = event.clientY - top - height / 2;
    const grown = scale / zoom.scale;
    setZoom(clamp({ scale, x: x - (x - zoom.x) * grown, y: y - (y - zoom.y) * grown }));
  }
  function pressed(event) {
    if (event.button !== 0) return;
    drag.current = { x: event.clientX, y: event.clientY, from: zoom, moved: false };
    event.currentTarget.setPointerCapture(event.pointerId);
  }
  function moved(event) {
    const { current } = drag;
    if (!current || !isZoomed) return;
    const [x, y] = [event.clientX - current.x, event.clientY - current.y];
    current.moved ||= Math.hypot(x, y) > 4;
    if (current.moved) setZoom(clamp({ ...zoom, x: current.from.x + x, y: current.from.y + y }));
  }
  function released(event) {
    const { current } = drag;
    drag.current = null;
    if (!current || current.moved) return;
    if (isZoomed) setZoom({ scale: 1, x: 0, y: 0 });
    else zoomAt(event, 3);
  }
  useEffect(() => {
    const { current } = stage;
    const turned = (event) => {
      event.preventDefault();
      zoomAt(event, Math.max(1, Math.min(CLOSEST, zoom.scale * 1.0015 ** -event.deltaY)));
    };
    current.addEventListener("wheel", turned, { passive: false });
    return () => current.removeEventListener("wheel", turned);
  });

  return html`<div
    ref=${stage}
    class=${`stage ${isZoomed ? "zoomed" : ""}`}
    tabindex="-1"
    data-id=${card.id}
    onPointerDown=${pressed}
    onPointerMove=${moved}
    onPointerUp=${released}
    onPointerCancel=${() => (drag.current = null)}
  >
    <div
      ref=${sheet}
      class="sheet"
      hidden=${failed !== null}
      style=${{ transform: `translate(${zoom.x}px, ${zoom.y}px) scale(${zoom.scale})` }}
    ></div>
    ${failed !== null && html`<p class="gone">${card.name} can't be shown: ${failed}</p>`}
    ${isLoading && html`<p class="loading" aria-hidden="true">loading …</p>`}
  </div>`;
}

function Choice({ label, digit, card, chosen, onPick }) {
  const share = card.blind ? undefined : card.top?.find((one) => one.label === label)?.p;
  const isSuggested = !card.blind && card.label === label;
  return html`<button
    type="button"
    class=${`choice ${isSuggested ? "suggested" : ""}`}
    aria-pressed=${String(chosen === label)}
    aria-keyshortcuts=${isSuggested ? `${digit} Enter` : digit}
    onClick=${(event) => onPick(label, event)}
  >
    ${share !== undefined && html`<span class="bar" style=${{ width: `${100 * share}%` }}></span>`}
    <${Key}>${digit}<//>
    <bdi>${spoken(label)}</bdi>
    ${share !== undefined && html`<span class="share">${percent(share)}</span>`}
    ${isSuggested && html`<${Key}>⏎<//>`}
  </button>`;
}

// A card's photograph beside the question, and the keys that answer it. `decided` is what was
// decided here before, `decide` is given the label, `moves` are the buttons below.
export function useJudging(session, card, { decided, decide, moves }) {
  const [zoom, setZoom] = useState({ scale: 1, x: 0, y: 0 });
  const [typing, setTyping] = useState(null); // "find" or "name"
  const view = useRef();
  const isZoomed = zoom.scale > 1;
  const whole = () => setZoom({ scale: 1, x: 0, y: 0 });
  const toStage = () => view.current?.querySelector(".stage")?.focus({ preventScroll: true });
  useLayoutEffect(() => {
    whole();
    setTyping(null);
    // Keys are the page's again, but for who walks the buttons by keyboard.
    if (!document.activeElement?.matches?.(".choice:focus-visible")) toStage();
  }, [card?.id]);
  if (!card) return { keys: {}, view: null };

  const digits = numbered(session, card);
  const pick = (label, event) => {
    setTyping(null);
    decide(label);
    if (!event || event.detail > 0) toStage();
  };
  const leave = () => {
    setTyping(null);
    toStage();
  };
  const pan = (x, y) => () =>
    setZoom(({ scale, ...at }) => {
      const { width, height } = view.current.querySelector(".stage").getBoundingClientRect();
      const most = (length) => (length * (scale - 1)) / 2;
      const within = (way, length) => Math.max(-most(length), Math.min(most(length), way));
      return { scale, x: within(at.x + (x * width) / 4, width), y: within(at.y + (y * height) / 4, height) };
    });
  const yes = () => {
    if (!card.blind && card.label) pick(card.label);
  };
  const keys = {
    enter: yes,
    space: yes,
    0: () => pick(NONE),
    n: () => setTyping("name"),
    "/": () => setTyping("find"),
    z: () => (isZoomed ? whole() : setZoom({ scale: 3, x: 0, y: 0 })),
    m: () => session.moreLike(card),
    ...Object.fromEntries(digits.map((label, i) => [String(i + 1), () => pick(label)])),
    ...(isZoomed && {
      escape: whole,
      arrowleft: pan(1, 0),
      arrowright: pan(-1, 0),
      arrowup: pan(0, 1),
      arrowdown: pan(0, -1),
    }),
  };

  const isAsked = !card.blind && card.label;
  const novelty = card.blind ? null : noveltyWords(card.novelty);
  const said = decided ?? card.decided?.label ?? null;
  return {
    keys,
    isZoomed,
    view: html`<div class="judge" ref=${view}>
      <${Stage} card=${card} zoom=${zoom} setZoom=${setZoom} />
      <div class="panel">
        <h1 class="question"><bdi>${isAsked ? `${card.label}?` : "What is this?"}</bdi></h1>
        <p class="facts">
          ${isAsked && card.confidence !== null && html`<span>${percent(card.confidence)} sure</span>`}
          ${card.blind && html`<span>blind: its label is not shown</span>`}
          ${!card.blind && !said && html`<${Badges} card=${{ ...card, novelty: 0 }} />`}
          ${said && html`<span class="said">decided: <bdi>${spoken(said)}</bdi></span>`}
          ${novelty && html`<span class="novel-words">${novelty}</span>`}
        </p>
        <div class="choices" role="group" aria-label="What it is">
          ${typing
            ? html`<${Typing}
                key=${typing}
                names=${session.names}
                mayBeNew=${typing === "name"}
                onPick=${(name) => pick(name)}
                onLeave=${leave}
              />`
            : digits.map((label, i) => html`<${Choice}
                key=${label}
                label=${label}
                digit=${String(i + 1)}
                card=${card}
                chosen=${said}
                onPick=${pick}
              />`)}
          <${Choice} key=" none" label=${NONE} digit="0" card=${card} chosen=${said} onPick=${pick} />
          <button type="button" class="choice small-choice" aria-keyshortcuts="n" onClick=${() => setTyping("name")}>
            <${Key}>n<//><span>another …</span>
          </button>
          ${session.names.length > NUMBERED && html`<button
            type="button"
            class="choice small-choice"
            aria-keyshortcuts="/"
            onClick=${() => setTyping("find")}
          >
            <${Key}>/<//><span>find a class</span>
          </button>`}
        </div>
        <div class="moves">
          ${moves}
          <button
            type="button"
            class="more-like"
            disabled=${Boolean(session.pile.like)}
            title=${session.pile.like ?? ""}
            aria-keyshortcuts="m"
            onClick=${() => session.moreLike(card)}
          >
            <${Key}>m<//>More like this
          </button>
        </div>
        <p class="file"><bdi>${card.uri}</bdi></p>
      </div>
    </div>`,
  };
}

// The photographs of a mode, or of one class of it, one after the other.
export function One({ session, mode, of }) {
  const [, redraw] = useReducer((n) => n + 1, 0);
  const deck = useRef();
  useEffect(() => {
    deck.current = new Deck(session, mode, of, redraw);
    redraw();
    return () => deck.current.close();
  }, []);
  const { current } = deck;
  const entry = current?.shown;
  const { title } = session.mode(mode);

  const undo = async () => {
    const back = await current.undo();
    session.say(back ? `Undone: ${many(back, "photograph")} to decide again.` : "Nothing is left to undo.");
  };
  const back = () => current.go(current.at - 1);
  const on = () => current.go(current.at + 1);
  const judging = useJudging(session, entry?.card, {
    decided: entry?.label,
    decide: (label) => current.decide(label),
    moves: html`
      <button type="button" disabled=${!current?.at} onClick=${back} aria-keyshortcuts="ArrowLeft"><${Key}>←<//>Back</button>
      <button type="button" onClick=${undo} aria-keyshortcuts="u"><${Key}>u<//>Undo</button>
      <button type="button" onClick=${on} aria-keyshortcuts="ArrowRight">Skip<${Key}>→<//></button>
    `,
  });
  useKeys({
    u: undo,
    ...(current && { arrowleft: back }),
    ...(entry && { arrowright: on }),
    ...judging.keys,
  });
  useEffect(() => {
    if (!entry) return;
    const { card } = entry;
    const asked = card.blind || !card.label ? "What is this?" : `${card.label}? ${percent(card.confidence)} sure.`;
    session.say(`${asked} ${count(current.left)} left.`);
  }, [entry?.card.id]);

  const isOver = current && !entry && current.ended && !current.asking;
  return html`<${Frame}
    session=${session}
    title=${of ? `${title}: ${of}` : title}
    aside=${current && current.left !== null && html`<span class="left"><b>${count(current.left)}</b> left</span>`}
    keys=${KEYS}
    className=${isOver ? "" : "fixed"}
    grid=${mode === "audit" ? null : `#/grid/${of ? `class/${encodeURIComponent(of)}` : mode}`}
  >
    ${judging.view}
    ${isOver && html`<${End}
      session=${session}
      mode=${mode}
      skipped=${current.undecided.length}
      onSkipped=${() => current.skipped()}
      onUndo=${undo}
    />`}
    ${!entry && !isOver && html`<p class="opening" role="status">Looking for the next photograph …</p>`}
  <//>`;
}
