"use strict";
// On a phone, what is long is closed until it is asked for.
(() => {
  const phone = matchMedia("(max-width: 46rem)");
  const fit = () => {
    for (const details of document.querySelectorAll("details[data-wide]")) details.open = !phone.matches;
  };
  phone.addEventListener("change", fit);
  fit();
})();
