// Photographs, loaded and decoded before they are shown.

const KEPT = 20;
const pictures = new Map(); // address -> image, the last used at the end

export const address = (id, side) =>
  `photo/${encodeURIComponent(id)}${side ? `?side=${side}` : ""}`;

// Pixels that the screen can show of a whole photograph.
export const screenSide = () =>
  Math.max(innerWidth, innerHeight) * devicePixelRatio > 1100 ? 1600 : 1024;

// The image of a photograph, being loaded or loaded; `image.ready` is settled when it can be shown
// without delay, and rejected if it can't be.
export function picture(id, side) {
  const from = address(id, side);
  let image = pictures.get(from);
  if (!image) {
    image = new Image();
    image.decoding = "async";
    image.draggable = false;
    image.src = from;
    image.ready = image.decode();
    image.ready.catch(() => pictures.delete(from)); // asked for anew the next time
  }
  pictures.delete(from);
  pictures.set(from, image);
  if (pictures.size > KEPT) pictures.delete(pictures.keys().next().value);
  return image;
}

// Why a photograph can't be shown, in the server's words.
export async function trouble(id, side) {
  try {
    const answer = await fetch(address(id, side));
    return answer.ok ? "the browser can't show it" : (await answer.text()).slice(0, 200);
  } catch {
    return "the server doesn't answer";
  }
}
