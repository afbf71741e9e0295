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
  int slots = 0, first_slot[PAIRS + 1], last_slot[PAIRS + 1];
  filled = zero;
  for (int p = 0; p < known; ++p) {
    slot[p] = pair_on[p] > 0.5 ? filled : V(-1.0);
    filled = filled + pair_on[p];
    first_slot[p] = SLOTS_MOST;
    last_slot[p] = -1;
    for (int l = 0; l < LANES; ++l) {
      const int place = (int)vlane(slot[p], l);
      // More than this is not for Newton; lanes that have more do not pass.
      if (place < 0 || place >= SLOTS_MOST) continue;
      if (place < first_slot[p]) first_slot[p] = place;
      if (place > last_slot[p]) last_slot[p] = place;
    }
    if (last_slot[p] >= slots) slots = last_slot[p] + 1;
  }
  const int size = AXES * slots;
  if (slots > 0) {
    // The tree's matrix is eliminated from the leaves, so a pair meets only the joints that carry
    // it: its impulses push them, its velocity rows pull them, and the answer of one pair to
    // another is the sum of their products over the joints and roots that carry both.
    struct Way {
      V push[AXES][NV + 1], pull[AXES][NV + 1], turn[2][AXES][6], row[2][AXES][6];
      bool has[NV + 1];
      int dofs[NV + 1], count, roots[2], root_count;
    };
    const auto climb = [&](int& link, V (&force)[AXES][MOVES], V (&row)[AXES][MOVES], Way& way)
        __attribute__((always_inline)) {
      for (int d = first_dof[link] + dofs_of[link] - 1; d >= first_dof[link]; --d) {
        const V* const s = motion0 + 6 * d;
        const V* const t = motion1 + 6 * d;
        const V* const u = response + 6 * kept_place[d];
        const V* const w = carried + 6 * kept_place[d];
        way.has[d] = true;
        way.dofs[way.count++] = d;
        #pragma unroll
        for (int r = 0; r < AXES; ++r) {
          V push = s[move[0]] * force[r][0], pull = t[move[0]] * row[r][0];
          #pragma unroll
          for (int m = 1; m < MOVES; ++m) {
            push = push + s[move[m]] * force[r][m];
            pull = pull + t[move[m]] * row[r][m];
          }
          pull = pull * inverse[kept_place[d]];
          way.push[r][d] = push;
          way.pull[r][d] = pull;
          #pragma unroll
          for (int m = 0; m < MOVES; ++m) {
            force[r][m] = force[r][m] - u[move[m]] * push;
            row[r][m] = row[r][m] - w[move[m]] * pull;
          }
        }
      }
      if (root_place[link] >= 0) {
        const V* const f = root + 36 * root_place[link];
        const int n = way.root_count++;
        way.roots[n] = link;
        for (int r = 0; r < AXES; ++r) {
          V* const turn = way.turn[n][r];
          for (int m = 0; m < MOVES; ++m) {
            turn[move[m]] = force[r][m];
            way.row[n][r][move[m]] = row[r][m];
          }
          #pragma unroll
          for (int k = 5; k >= 0; --k)
            for (int i = 0; i < k; ++i) turn[i] = turn[i] - f[6 * i + k] * turn[k];
          #pragma unroll
          for (int k = 0; k < 6; ++k) {
            for (int j = 0; j < k; ++j) turn[k] = turn[k] - f[6 * k + j] * turn[j];
            turn[k] = turn[k] * f[7 * k];
          }
        }
      }
      link = parent_of[link];
    };
    const auto find_way = [&](int pair, Way& way) __attribute__((noinline)) {
      for (int d = 0; d < NV; ++d) way.has[d] = false;
      way.count = way.root_count = 0;
      V force[AXES][MOVES], row[AXES][MOVES], against[AXES][MOVES], behind[AXES][MOVES];
      #pragma unroll
      for (int r = 0; r < AXES; ++r)
        #pragma unroll
        for (int m = 0; m < MOVES; ++m) {
          const V* const rows = pair_rows[pair] + 6 * axis[r] + move[m];
          row[r][m] = rows[0];
          behind[r][m] = -rows[18];
          force[r][m] = rows[36];
          against[r][m] = -rows[36];
        }
      // Children stand behind their parents: the two branches meet at the first common link.
      int a = pair_a[pair], b = pair_b[pair] == NL ? -1 : pair_b[pair];
      while (a != b) {
        if (a > b) climb(a, force, row, way);
        else climb(b, against, behind, way);
      }
      #pragma unroll
      for (int r = 0; r < AXES; ++r)
        #pragma unroll
        for (int m = 0; m < MOVES; ++m) {
          force[r][m] = force[r][m] + against[r][m];
          row[r][m] = row[r][m] + behind[r][m];
        }
      while (a >= 0) climb(a, force, row, way);
    };
    Way ways[WAYS_MOST + 2];
    for (int p = 0; p < known && p < WAYS_MOST; ++p) find_way(p, ways[p]);
    // Of more pairs than are kept, the way is found again.
    const auto way_of = [&](int pair, int spare) -> const Way& {
      if (pair < WAYS_MOST) return ways[pair];
      find_way(pair, ways[WAYS_MOST + spare]);
      return ways[WAYS_MOST + spare];
    };

    V system[9 * SLOTS_MOST * SLOTS_MOST], change[3 * SLOTS_MOST];
    for (int i = 0; i < size; ++i) change[i] = zero;
    for (int i = 0; i < size * size; ++i) system[i] = i % (size + 1) ? zero : one;
    for (int p = 0; p < known; ++p) {
      for (int r = 0; r < AXES; ++r) {
        V aim = pair_reply[p][axis[r]];
        for (int c = 0; c < AXES; ++c)
          aim = aim - pair_reply[p][3 + 3 * axis[r] + axis[c]] * relative(p, c, twist);
        for (int s = first_slot[p]; s <= last_slot[p]; ++s) {
          V& place = change[AXES * s + r];
          place = slot[p] == (double)s ? aim : place;
        }
      }
      const Way& pushed = way_of(p, 0);
      V columns[9 * SLOTS_MOST];
      for (int i = 0; i < AXES * size; ++i) columns[i] = zero;
      for (int other = 0; other < known; ++other) {
        if (!vany((pair_on[p] > 0.5) & (pair_on[other] > 0.5))) continue;
        const Way& pulled = way_of(other, 1);
        V speed[AXES][AXES];
        #pragma unroll
        for (int r = 0; r < AXES; ++r)
          #pragma unroll
          for (int c = 0; c < AXES; ++c) speed[r][c] = zero;
        for (int n = 0; n < pulled.count; ++n) {
          const int d = pulled.dofs[n];
          if (!pushed.has[d]) continue;
          #pragma unroll
          for (int r = 0; r < AXES; ++r)
            #pragma unroll
            for (int c = 0; c < AXES; ++c)
              speed[r][c] = speed[r][c] + pulled.pull[r][d] * pushed.push[c][d];
        }
        for (int n = 0; n < pulled.root_count; ++n)
          for (int o = 0; o < pushed.root_count; ++o) {
            if (pulled.roots[n] != pushed.roots[o]) continue;
            for (int m = 0; m < MOVES; ++m)
              #pragma unroll
              for (int r = 0; r < AXES; ++r)
                #pragma unroll
                for (int c = 0; c < AXES; ++c)
                  speed[r][c] = speed[r][c] +
                                pulled.row[n][r][move[m]] * pushed.turn[o][c][move[m]];
          }
        #pragma unroll
        for (int r = 0; r < AXES; ++r) {
          const V* const gain = pair_reply[other] + 3 + 3 * axis[r];
          #pragma unroll
          for (int c = 0; c < AXES; ++c) {
            V sum = other == p && r == c ? one : zero;
            #pragma unroll
            for (int i = 0; i < AXES; ++i) sum = sum + gain[axis[i]] * speed[i][c];
            for (int s = first_slot[other]; s <= last_slot[other]; ++s) {
              V& place = columns[AXES * (AXES * s + r) + c];
              place = slot[other] == (double)s ? sum : place;
            }
          }
        }
      }
      for (int s = first_slot[p]; s <= last_slot[p]; ++s) {
        const M here = slot[p] == (double)s;
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
        for (int s = first_slot[p]; s <= last_slot[p]; ++s)
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
