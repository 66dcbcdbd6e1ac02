"use strict";
fetch("/v1/models")
  .then((answer) => (answer.ok ? answer.json() : null))
  .then((models) => {
    if (models) document.getElementById("model").textContent = "Serving " + models.data[0].id + ".";
  });
