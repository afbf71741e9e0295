// What contacts leave on the links they touch; zero on all others.
V load[6 * (NL + 1)], push[6 * (NL + 1)], hold[36 * (NL + 1)];
int touched[NL + 1], touched_count = 0, former[NL + 1], former_count = 0;
bool is_touched[NL + 1];
const auto clear = [&](int link) {
  for (int i = 0; i < MOVES; ++i) {
    load[6 * link + move[i]] = push[6 * link + move[i]] = V(0.0);
    for (int j = 0; j < MOVES; ++j) hold[36 * link + 6 * move[i] + move[j]] = V(0.0);
  }
};
for (int link = 0; link <= NL; ++link) {
  for (int i = 0; i < 6; ++i) load[6 * link + i] = push[6 * link + i] = V(0.0);
  for (int i = 0; i < 36; ++i) hold[36 * link + i] = V(0.0);
  is_touched[link] = false;
}
// Whether a contact is the first on a link.
const auto touch = [&](int link) -> bool {
  if (is_touched[link]) return false;
  touched[touched_count++] = link;
  return is_touched[link] = true;
};
// What a contact on a plane leaves, load, push and hold in a row: the first writes, the others add.
const auto leave_on = [&](int link, const V* own) {
  V* const l = load + 6 * link;
  V* const p = push + 6 * link;
  V* const h = hold + 36 * link;
  if (touch(link)) {
    for (int i = 0; i < MOVES; ++i) {
      l[move[i]] = own[move[i]];
      p[move[i]] = own[6 + move[i]];
      for (int j = 0; j < MOVES; ++j)
        h[6 * move[i] + move[j]] = own[12 + 6 * move[i] + move[j]];
    }
  } else {
    for (int i = 0; i < MOVES; ++i) {
      l[move[i]] = l[move[i]] + own[move[i]];
      p[move[i]] = p[move[i]] + own[6 + move[i]];
      for (int j = 0; j < MOVES; ++j) {
        const int at = 6 * move[i] + move[j];
        h[at] = h[at] + own[12 + at];
      }
    }
  }
};
const auto release = [&]() {
  for (former_count = 0; former_count < touched_count; ++former_count) {
    former[former_count] = touched[former_count];
    is_touched[touched[former_count]] = false;
  }
  touched_count = 0;
};
const auto clear_released = [&]() {
  for (int i = 0; i < former_count; ++i)
    if (!is_touched[former[i]]) clear(former[i]);
  former_count = 0;
};
// Whether two balls (centre, radius) are closer than a distance.
const auto are_near = [](const V* a, const V* b, V distance) -> M {
  const V x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2], reach = a[3] + b[3] + distance;
  return x * x + y * y + z * z < reach * reach;
};
// The step of one block of environments, one environment a lane, by Newton's method on the natural
// residuals, from a start and impulses that the caller gives. A lane ends when balance and natural
// residual were below the tolerance, after one more step. Returns the lanes that did.
const auto newton = [&](
    const V* q, const V* v, const V* force, const V* steps, const V* num, const V* kappa,
    bool smooth, bool predict, int most, M wanted, V* x, V* limit, V* rub, V* impulses, V* report)
    __attribute__((noinline)) -> M {
V pose0[12 * (NL + 1)], pose1[12 * (NL + 1)], motion0[6 * NV + 1], motion1[6 * NV + 1];
V center0[3 * NL + 1], center1[3 * NL + 1], carrier[9 * NL + 1], spread[9 * NL + 1];
V impulse[NV + 1], twist[6 * (NL + 1)];
V joint_load[NV + 1], joint_push[NV + 1], joint_hold[NV + 1];
V limit_offset[2 * LIMITS + 1], limit_gain[2 * LIMITS + 1];
V limit_allowed[2 * LIMITS + 1], rub_offset[RUBS + 1], rub_gain[RUBS + 1];
V carried[6 * NV + 1], response[6 * NV + 1], inverse[NV + 1], root[36 * NL];
V dv[NV + 1], react[6 * (NL + 1)], filled = V(0.0);
V* pair_rows[PAIRS + 1];
V* pair_reply[PAIRS + 1];
V* pair_change[PAIRS + 1];
V pair_on[PAIRS + 1];
int pair_a[PAIRS + 1], pair_b[PAIRS + 1], pairs = 0;
V rate[1], per_kappa[1], err[3], run[1], alpha[1], determinant[1], closest[1], reach[1];
@NEWTON_RECORDS@
const V zero = V(0.0), one = V(1.0);
rate[0] = 1.0 / steps[1];
per_kappa[0] = 1.0 / kappa[0];
for (int i = 0; i < 12; ++i) {
  const V unit = V(i == 0 || i == 4 || i == 8 ? 1.0 : 0.0);
  pose0[12 * NL + i] = unit;
  pose1[12 * NL + i] = unit;
}
for (int i = 0; i < 6; ++i) twist[6 * NL + i] = zero;
@CONSTANTS@
@NODE@
@ALLOWED@
@APPROACH@
if (predict) {
@PREDICT@
}
const V margin = PRUNING * steps[1];
@BALLS:pose0@
@NEWTON:NODE@

V cap[1] = {V(GAIN_CAP)}, last = V(__builtin_inf()), earlier = last;
// The path that only serves an exact step, for its gradient or its rescue: the last step squares the
// deviation, so that it may be ten times the tolerance before.
const double path_most = is_smooth ? PATH_TOLERANCE : 10.0 * PATH_TOLERANCE;
V done = wanted ? zero : one, passed = zero, iterations = zero, lowest = zero;
for (;;) {
  release();
  pairs = 0;
  err[0] = err[1] = err[2] = zero;
  if (!smooth) {
    // Contacts that cannot all stick, or hardly move because of others, creep while their impulses
    // grow by the gain: it grows with them, until one lets go.
    const M moves = (last > 2.0 * earlier) | !(last < V(__builtin_inf()));
    const M stalls = (last < STALLED) & (last > 0.5 * earlier);
    const V grown = stalls ? vmin(GAIN_GROWTH * cap[0], V(GAIN_MOST)) : cap[0];
    cap[0] = done < 0.5 ? (moves ? V(GAIN_CAP) : grown) : cap[0];
  }
  @SWEEP@
  if (smooth) {
  @SMOOTH_JOINTS@
  } else {
  @JOINTS@
  }
  @NEWTON:PRESS@
  clear_released();
  run[0] = done < 0.5 ? one : zero;
  @SOLVE@
  @COUPLE@
  @NEWTON:INCREMENT@
  iterations = iterations + run[0];
  earlier = run[0] > 0.5 ? last : earlier;
  last = run[0] > 0.5 ? vmax(err[0], err[1]) : last;
  const M good = (err[0] < NEWTON_TOLERANCE) & (err[1] < NEWTON_TOLERANCE) &
                 (err[2] < path_most) &
                 ((determinant[0] > 0.0) | (smooth ? one > zero : one < zero)) &
                 (filled < SLOTS_MOST + 0.5);
  passed = ((run[0] > 0.5) & good) ? one : passed;
  // A lane ends by what it did itself, whatever its neighbours do.
  done = ((passed > 0.5) | (iterations > (double)most - 0.5)) ? one : done;
  if (vany(done < 0.5)) continue;
  // A contact left out may have closed: it is taken in, and its lanes go on.
  V again = zero;
  lowest = V(__builtin_inf());
  @BALLS:pose1@
  @NEWTON:RECHECK@
  passed = again > 0.5 ? zero : passed;
  done = ((again > 0.5) & (iterations < (double)most - 0.5)) ? zero : done;
  if (!vany(done < 0.5)) break;
}
report[0] = iterations;
report[1] = err[0];
report[2] = err[1];
report[3] = lowest;
report[4] = err[2];
return passed > 0.5;
};
