// Contacts between links on top of the tree's solution. With the tree's answer G to their impulses
// their increments solve (1 + C G) d = a - C u, a small dense system; the tree then answers d.
// Environments push with different pairs: slot s is the s-th pair that pushes in a lane, so that the
// dense system has as many rows as a lane has contacts, not as the block has pairs.
{
  const int known = pairs;
  const auto relative = [&](int pair, int r, const V* twists) -> V {
    const V* const row = pair_rows[pair] + 6 * axis[r];
    const V* const ta = twists + 6 * pair_a[pair];
    const V* const tb = twists + 6 * pair_b[pair];
    V sum = zero;
    #pragma unroll
    for (int m = 0; m < MOVES; ++m)
      sum = sum + row[move[m]] * ta[move[m]] - row[18 + move[m]] * tb[move[m]];
    return sum;
  };
  V slot[PAIRS + 1];
  filled = zero;
  for (int p = 0; p < known; ++p) {
    slot[p] = pair_on[p] > 0.5 ? filled : V(-1.0);
    filled = filled + pair_on[p];
  }
  int slots = 0;
  for (int l = 0; l < LANES; ++l)
    if (vlane(filled, l) > slots) slots = (int)vlane(filled, l);
  // More than this is not for Newton; lanes that have more do not pass.
  if (slots > SLOTS_MOST) slots = SLOTS_MOST;
  const int size = AXES * slots;
  if (slots > 0) {
    // Links that carry a pair, and how they answer unit impulses of one pair along each axis.
    bool is_moved[NL + 1], is_pushed[NL + 1];
    V answers[AXES][6 * (NL + 1)], pushes[AXES][NV + 1];
    for (int link = 0; link <= NL; ++link) is_moved[link] = false;
    for (int r = 0; r < AXES; ++r)
      for (int i = 0; i < 6; ++i) answers[r][6 * NL + i] = zero;
    const auto move_down_to = [&](int link) {
      for (; link >= 0 && link < NL && !is_moved[link]; link = parent_of[link])
        is_moved[link] = true;
    };
    for (int p = 0; p < known; ++p) {
      move_down_to(pair_a[p]);
      move_down_to(pair_b[p]);
    }
    // Takes wrenches on a link to what carries it.
    const auto climb = [&](int& link, V (&force)[AXES][MOVES]) __attribute__((always_inline)) {
      is_pushed[link] = true;
      for (int d = first_dof[link] + dofs_of[link] - 1; d >= first_dof[link]; --d) {
        const V* const s = motion0 + 6 * d;
        const V* const u = response + 6 * kept_place[d];
        #pragma unroll
        for (int r = 0; r < AXES; ++r) {
          V sum = s[move[0]] * force[r][0];
          #pragma unroll
          for (int m = 1; m < MOVES; ++m) sum = sum + s[move[m]] * force[r][m];
          pushes[r][d] = sum;
          #pragma unroll
          for (int m = 0; m < MOVES; ++m) force[r][m] = force[r][m] - u[move[m]] * sum;
        }
      }
      if (root_place[link] >= 0)
        for (int r = 0; r < AXES; ++r)
          for (int m = 0; m < MOVES; ++m) answers[r][6 * link + move[m]] = force[r][m];
      link = parent_of[link];
    };
    const auto answer_to = [&](int pair) {
      for (int link = 0; link < NL; ++link) is_pushed[link] = false;
      V force[AXES][MOVES], against[AXES][MOVES];
      #pragma unroll
      for (int r = 0; r < AXES; ++r)
        #pragma unroll
        for (int m = 0; m < MOVES; ++m) {
          force[r][m] = pair_rows[pair][36 + 6 * axis[r] + move[m]];
          against[r][m] = -force[r][m];
        }
      // Children stand behind their parents: the two branches meet at the first common link.
      int a = pair_a[pair], b = pair_b[pair] == NL ? -1 : pair_b[pair];
      while (a != b) {
        if (a > b) climb(a, force);
        else climb(b, against);
      }
      #pragma unroll
      for (int r = 0; r < AXES; ++r)
        #pragma unroll
        for (int m = 0; m < MOVES; ++m) force[r][m] = force[r][m] + against[r][m];
      while (a >= 0) climb(a, force);
      for (int link = 0; link < NL; ++link) {
        if (!is_moved[link]) continue;
        const int parent = parent_of[link];
        if (root_place[link] >= 0) {
          const V* const f = root + 36 * root_place[link];
          for (int r = 0; r < AXES; ++r) {
            V* const twist = answers[r] + 6 * link;
            if (!is_pushed[link])
              for (int i = 0; i < 6; ++i) twist[i] = zero;
            #pragma unroll
            for (int k = 5; k >= 0; --k)
              for (int i = 0; i < k; ++i) twist[i] = twist[i] - f[6 * i + k] * twist[k];
            #pragma unroll
            for (int k = 0; k < 6; ++k) {
              for (int j = 0; j < k; ++j) twist[k] = twist[k] - f[6 * k + j] * twist[j];
              twist[k] = twist[k] * f[7 * k];
            }
          }
          continue;
        }
        V turn[AXES][MOVES];
        #pragma unroll
        for (int r = 0; r < AXES; ++r)
          #pragma unroll
          for (int m = 0; m < MOVES; ++m)
            turn[r][m] = parent < 0 ? zero : answers[r][6 * parent + move[m]];
        for (int d = first_dof[link]; d < first_dof[link] + dofs_of[link]; ++d) {
          const V* const w = carried + 6 * kept_place[d];
          const V* const t = motion1 + 6 * d;
          #pragma unroll
          for (int r = 0; r < AXES; ++r) {
            V rest = is_pushed[link] ? pushes[r][d] : zero;
            #pragma unroll
            for (int m = 0; m < MOVES; ++m) rest = rest - w[move[m]] * turn[r][m];
            rest = rest * inverse[kept_place[d]];
            #pragma unroll
            for (int m = 0; m < MOVES; ++m) turn[r][m] = turn[r][m] + t[move[m]] * rest;
          }
        }
        #pragma unroll
        for (int r = 0; r < AXES; ++r)
          #pragma unroll
          for (int m = 0; m < MOVES; ++m) answers[r][6 * link + move[m]] = turn[r][m];
      }
    };

    V system[9 * SLOTS_MOST * SLOTS_MOST], change[3 * SLOTS_MOST];
    for (int i = 0; i < size; ++i) change[i] = zero;
    for (int i = 0; i < size * size; ++i) system[i] = i % (size + 1) ? zero : one;
    for (int p = 0; p < known; ++p) {
      for (int r = 0; r < AXES; ++r) {
        V aim = pair_reply[p][axis[r]];
        for (int c = 0; c < AXES; ++c)
          aim = aim - pair_reply[p][3 + 3 * axis[r] + axis[c]] * relative(p, c, twist);
        for (int s = 0; s < slots; ++s) {
          V& place = change[AXES * s + r];
          place = slot[p] == (double)s ? aim : place;
        }
      }
      answer_to(p);
      V columns[9 * SLOTS_MOST];
      for (int i = 0; i < AXES * size; ++i) columns[i] = zero;
      for (int other = 0; other < known; ++other)
        #pragma unroll
        for (int c = 0; c < AXES; ++c) {
          V speed[AXES];
          #pragma unroll
          for (int r = 0; r < AXES; ++r) speed[r] = relative(other, r, answers[c]);
          #pragma unroll
          for (int r = 0; r < AXES; ++r) {
            const V* const gain = pair_reply[other] + 3 + 3 * axis[r];
            V sum = other == p && r == c ? one : zero;
            #pragma unroll
            for (int i = 0; i < AXES; ++i) sum = sum + gain[axis[i]] * speed[i];
            for (int s = 0; s < slots; ++s) {
              V& place = columns[AXES * (AXES * s + r) + c];
              place = slot[other] == (double)s ? sum : place;
            }
          }
        }
      for (int s = 0; s < slots; ++s) {
        const M here = slot[p] == (double)s;
        if (!vany(here)) continue;
        for (int row = 0; row < size; ++row)
          for (int c = 0; c < AXES; ++c) {
            V& place = system[row * size + AXES * s + c];
            place = here ? columns[AXES * row + c] : place;
          }
      }
    }
    for (int k = size - 1; k >= 0; --k) {
      determinant[0] = determinant[0] * system[k * size + k];
      const V per_pivot = one / system[k * size + k];
      for (int i = 0; i < k; ++i) {
        const V share = system[i * size + k] * per_pivot;
        change[i] = change[i] - share * change[k];
        for (int j = 0; j < k; ++j)
          system[i * size + j] = system[i * size + j] - share * system[k * size + j];
      }
    }
    for (int k = 0; k < size; ++k) {
      for (int j = 0; j < k; ++j) change[k] = change[k] - system[k * size + j] * change[j];
      change[k] = change[k] / system[k * size + k];
    }
    for (int i = 0; i < 6 * (NL + 1); ++i) react[i] = zero;
    for (int p = 0; p < known; ++p)
      for (int r = 0; r < AXES; ++r) {
        V strength = zero;
        for (int s = 0; s < slots; ++s)
          strength = slot[p] == (double)s ? change[AXES * s + r] : strength;
        pair_change[p][axis[r]] = strength;
        for (int m = 0; m < MOVES; ++m) {
          const int a = 6 * pair_a[p] + move[m], b = 6 * pair_b[p] + move[m];
          const V part = strength * pair_rows[p][36 + 6 * axis[r] + move[m]];
          react[a] = react[a] + part;
          react[b] = react[b] - part;
        }
      }
    @REACT@
  }
  @FINISH@
}
