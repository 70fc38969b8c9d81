(function () {
  "use strict";
  document.documentElement.classList.add("js");
  var FIRST = window.innerWidth < 640 ? 8 : 24;

  var dial = document.getElementById("intensity");
  if (dial) {
    var cars = Array.prototype.map.call(document.querySelectorAll(".car"), function (car) {
      return { car: car, count: +car.dataset.count, futurism: JSON.parse(car.dataset.futurism), out: car.querySelector("output") };
    });
    dial.addEventListener("input", function () {
      var share = dial.value / dial.max;
      document.getElementById("intensity-text").textContent = Math.round(100 * share) + " %";
      cars.forEach(function (one) {
        var at = Math.round(share * (one.count - 1));
        one.car.style.setProperty("--at", at);
        if (one.out) { one.out.textContent = one.futurism[at] === null ? "–" : one.futurism[at]; }
      });
    });
  }

  var list = document.getElementById("cards");
  if (!list) { return; }
  var more = document.getElementById("more"), status = document.getElementById("sorted");
  var sorts = Array.prototype.slice.call(document.querySelectorAll("button[data-sort]"));
  var sets = Array.prototype.slice.call(document.querySelectorAll("button[data-set]"));
  var items = Array.prototype.slice.call(list.children);

  function number(item, key) { return item.dataset[key] === "" ? null : +item.dataset[key]; }
  function show() {
    var count = 0;
    items.forEach(function (item) {
      if (!item.hidden) { count += 1; }
      item.classList.toggle("late", count > FIRST);
    });
    more.hidden = count <= FIRST || list.classList.contains("all");
    more.textContent = "Show all " + count;
  }
  function sort(key, way) {
    items.sort(function (a, b) {
      var x = number(a, key), y = number(b, key);
      if (x === null || y === null) { return (x === null) - (y === null); }
      return way === "down" ? y - x : x - y;
    });
    items.forEach(function (item) { list.appendChild(item); });
    show();
  }
  sorts.forEach(function (button) {
    button.addEventListener("click", function () {
      if (button.getAttribute("aria-pressed") === "true") { button.dataset.way = button.dataset.way === "down" ? "up" : "down"; }
      sorts.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
      sort(button.dataset.sort, button.dataset.way);
      status.textContent = "Sorted by " + button.dataset.sort + ", " + (button.dataset.way === "down" ? "highest" : "lowest") + " first";
    });
  });
  sets.forEach(function (button) {
    button.addEventListener("click", function () {
      sets.forEach(function (other) { other.setAttribute("aria-pressed", String(other === button)); });
      items.forEach(function (item) { item.hidden = button.dataset.set !== "" && item.dataset.set !== button.dataset.set; });
      show();
    });
  });
  more.addEventListener("click", function () { list.classList.add("all"); more.hidden = true; });
  show();
})();
