// The photographs of one mode, one after the other: those seen, the one shown, some ahead.
import { patiently } from "./server.js";
import { picture, screenSide } from "./pictures.js";

const AHEAD = 8;

export class Deck {
  // `session` is the reviewer's; `changed` is called when something is to be drawn anew.
  constructor(session, mode, of, changed) {
    Object.assign(this, { session, mode, of, changed });
    this.cards = []; // {card, label}: the label that was decided here, or null
    this.at = 0;
    this.left = null;
    this.ended = false;
    this.asking = false;
    this.closed = false;
    session.hold(mode, () => this.undecided.map(({ card }) => card.id));
    this.fill();
  }

  get shown() {
    return this.cards[this.at];
  }
  get undecided() {
    return this.cards.filter(({ label }) => label === null);
  }

  // Asks for more until AHEAD photographs are at hand, and has their pictures decoded.
  async fill() {
    this.prefetch();
    const ahead = this.cards.slice(this.at).filter(({ label }) => label === null).length;
    if (this.asking || this.ended || this.closed || ahead > AHEAD / 2) return;
    this.asking = true;
    try {
      const { session } = this;
      const answer = await patiently(
        "api/next",
        {
          who: session.who,
          mode: this.mode,
          number: AHEAD - ahead,
          class: this.of,
          like: null,
          ids: null,
          // What was decided and isn't saved yet is still ours.
          held: [...new Set([...this.undecided.map(({ card }) => card.id), ...session.outbox.ids()])],
          grid: false,
          after: null,
        },
        () => this.closed,
      );
      if (!answer || this.closed) return;
      const known = new Set(this.cards.map(({ card }) => card.id));
      const more = answer.cards.filter((card) => !known.has(card.id));
      this.cards.push(...more.map((card) => ({ card, label: null })));
      this.left ??= answer.left;
      this.ended = !more.length;
      this.prefetch();
    } catch (failure) {
      this.ended = true;
      this.session.complain(failure.message);
    } finally {
      this.asking = false;
      if (!this.closed) this.changed();
    }
  }

  prefetch() {
    for (const { card } of this.cards.slice(this.at, this.at + AHEAD)) picture(card.id, screenSide());
  }

  decide(label) {
    const entry = this.shown;
    if (!entry) return;
    if (entry.label === null && this.left) this.left--;
    entry.label = label;
    this.session.decide([entry.card], label, this.mode).then((answer) => {
      // Counted by the server, but for what is still on its way; it doesn't count a single class.
      if (answer && !this.of && !this.session.outbox.entries.length) this.left = answer.left;
      if (answer) this.changed();
    });
    const next = this.cards.findIndex(({ label }, i) => i > this.at && label === null);
    this.go(next < 0 ? this.cards.length : next);
  }

  // To photograph `to` of those at hand; one beyond the last is the end.
  go(to) {
    this.at = Math.max(0, Math.min(to, this.cards.length));
    this.fill();
    this.changed();
  }

  // The last decision is taken back and its photograph shown; how many there were, 0 if none.
  async undo() {
    const { cards, answered } = this.session.undo();
    const back = cards ?? (await answered)?.cards ?? [];
    if (!back.length || this.closed) return 0;
    for (const card of back) {
      const known = this.cards.find((entry) => entry.card.id === card.id);
      if (known) known.label = null;
      else this.cards.splice(this.at, 0, { card, label: null });
    }
    if (this.left !== null) this.left += back.length;
    this.go(this.cards.findIndex(({ card }) => card.id === back[0].id));
    return back.length;
  }

  // Those that were passed over, at the end.
  skipped() {
    const first = this.cards.findIndex(({ label }) => label === null);
    if (first >= 0) this.go(first);
  }

  close() {
    this.closed = true;
  }
}
