
"use strict";
// The cards hold everything; the viewer shows one of them large. Without scripts the cards remain.
const find = (id) => document.getElementById(id);
const cards = [...find("cards").children];
const place = find("place");
let playing = 0;

function show(step) {
  const card = cards[step];
  place.value = step + 1;
  find("shown").value = step + 1;
  find("stage").replaceChildren(card.querySelector("svg").cloneNode(true));
  find("details").replaceChildren(card.querySelector(".notes").cloneNode(true));
  cards.forEach((other) => other.setAttribute("aria-current", String(other === card)));
}

function play(on) {
  clearInterval(playing);
  playing = on ? setInterval(() => show(place.value % cards.length), 900) : 0;
  find("play").textContent = on ? "Pause" : "Play";
  find("play").setAttribute("aria-pressed", String(on));
}

place.addEventListener("input", () => { play(false); show(place.value - 1); });
find("play").addEventListener("click", () => play(!playing));
find("plain").addEventListener("change", (event) => find("viewer").classList.toggle("plain", event.target.checked));
cards.forEach((card, step) => card.addEventListener("click", (event) => {
  if (!event.target.closest("summary")) { play(false); show(step); }
}));
document.body.classList.add("scripted");
find("viewer").hidden = false;
show(0);
