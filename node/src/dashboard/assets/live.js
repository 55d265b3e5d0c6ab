'use strict';
// Puts the page up to date when something has happened, and lets the hand go round. What is shown is decided by the
// server: this asks for the page again and puts in the parts that differ.
(() => {
  const link = document.getElementById('link');
  const alarm = document.getElementById('alarm');
  const still = matchMedia('(prefers-reduced-motion: reduce)');
  // What is on a page of jobs costs the database more than the rest: it is asked for at most every two seconds.
  const apart = location.pathname.startsWith('/jobs') ? 2000 : 0;
  let busy = false, again = false, lead = null;

  const say = (state, text) => {
    link.dataset.state = state;
    if (link.textContent !== text) link.textContent = text;
  };

  // Somebody is at work in it: pressing a button, reading what was opened, typing.
  const inUse = (part) =>
    part.contains(document.activeElement) || part.querySelector('details[open], :active') !== null;

  const put = (text) => {
    const fresh = new DOMParser().parseFromString('<body>' + text, 'text/html');
    for (const part of document.querySelectorAll('[data-live]')) {
      const next = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (!next || next.innerHTML === part.innerHTML || inUse(part)) continue;
      part.replaceChildren(...next.childNodes);
    }
    keepTime();
  };

  const refresh = async () => {
    if (busy) { again = true; return; }
    busy = true;
    try {
      const here = new URL(location.href);
      here.searchParams.set('part', '1');
      here.searchParams.delete('said');
      const answer = await fetch(here, { headers: { accept: 'text/html' }, signal: AbortSignal.timeout(10000) });
      // A node that was started again knows no cookie of before.
      if (answer.redirected && new URL(answer.url).pathname === '/login') location.reload();
      else if (answer.ok) put(await answer.text());
    } catch { /* the stream says when the node is away */ }
    setTimeout(() => {
      busy = false;
      if (again) { again = false; refresh(); }
    }, apart);
  };

  // How far the server's clock is ahead of the page's, in microseconds. What comes late seems to be behind: the
  // largest difference is the best; one that is far off is another clock.
  const keepTime = () => {
    const ring = document.querySelector('svg.ring');
    if (!ring) return;
    const seen = Number(ring.dataset.clock) - performance.now() * 1000;
    if (lead === null || lead - seen > 2e6) lead = seen;
    else lead = Math.max(seen, lead - 2e3);
  };

  const turn = () => {
    const ring = document.querySelector('svg.ring');
    const hand = document.getElementById('hand');
    if (ring && hand && lead !== null && !still.matches) {
      const { zero, period, of } = ring.dataset;
      const round = Number(period) * Math.max(1, Number(of));
      const within = performance.now() * 1000 + lead - Number(zero) + Number(period) / 2;
      const part = (((within % round) + round) % round) / round;
      hand.setAttribute('transform', `rotate(${(part * 360).toFixed(2)})`);
    }
    requestAnimationFrame(turn);
  };

  // A browser keeps few connections to one server: a page that nobody sees gives its own up.
  let stream = null;
  const listen = () => {
    if (stream) stream.close();
    stream = null;
    if (document.hidden) return;
    stream = new EventSource('/live');
    stream.addEventListener('open', () => { say('live', 'live'); refresh(); });
    stream.addEventListener('error', () => say('away', 'the node does not answer'));
    stream.addEventListener('news', (message) => {
      const news = JSON.parse(message.data);
      say(news.answers ? 'live' : 'away', news.answers ? 'live' : 'the database does not answer');
      if (news.alarm) alarm.textContent = news.alarm;
      document.dispatchEvent(new CustomEvent('news', { detail: news }));
      refresh();
    });
  };
  document.addEventListener('visibilitychange', listen);
  addEventListener('pagehide', () => { if (stream) stream.close(); });
  addEventListener('pageshow', (event) => { if (event.persisted) listen(); });

  keepTime();
  listen();
  requestAnimationFrame(turn);
})();
