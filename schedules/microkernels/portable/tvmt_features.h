/* Which instructions this family of micro-kernels uses: only those of every core. */
#ifndef TVMT_FEATURES_H
#define TVMT_FEATURES_H

#define TVMT_DSP 0

#endif
