// One pass over a symmetric matrix H, lower triangle by rows, blocks on the diagonal whole:
// H <- scale H + h p' + s q', y <- H g. The change is symmetric though its two terms are not.
// `size` is a multiple of eight; beyond the real size all vectors are zero.
#pragma clang fp contract(fast)
for (int i = 0; i < size; ++i) y[i] = 0.0;
for (int i = 0; i < size; i += 4) {
  double* row[4];
  V sum[4];
  for (int k = 0; k < 4; ++k) {
    row[k] = matrix + (long long)(i + k)*size;
    sum[k] = V(0.0);
  }
  const int diagonal = i/LANES*LANES;
  const int whole = i + 4 - diagonal <= LANES ? 1 : (i + 4 - diagonal)/LANES;
  for (int j = 0; j < diagonal + whole*LANES; j += LANES) {
    const V pj = *(const V*)(p + j), qj = *(const V*)(q + j), gj = *(const V*)(g + j);
    V yj = *(const V*)(y + j);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const V entry = scale * *(const V*)(row[k] + j) + h[i + k]*pj + s[i + k]*qj;
      *(V*)(row[k] + j) = entry;
      sum[k] += entry*gj;
      yj += entry*g[i + k];
    }
    if (j < diagonal) *(V*)(y + j) = yj;
  }
  for (int k = 0; k < 4; ++k) y[i + k] += vsum(sum[k]);
}
