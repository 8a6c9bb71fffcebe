import { useEffect, useRef } from 'react';
import uPlot from 'uplot';
import 'uplot/dist/uPlot.min.css';

export interface Line {
  label: string;
  color: string;
}

interface Props {
  /** Unix seconds, then one list for each line. */
  data: uPlot.AlignedData;
  lines: Line[];
  /** How values are written. */
  write: (value: number) => string;
  height?: number;
}

/** Lines over time. */
export default function Chart({ data, lines, write, height = 180 }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);

  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const axis = { stroke: '#868e96', grid: { stroke: '#868e9630', width: 1 }, ticks: { show: false } };
    const made = new uPlot(
      {
        width: Math.max(element.clientWidth, 100),
        height,
        scales: { y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] } },
        axes: [axis, { ...axis, size: 80, values: (_, values) => values.map((value) => write(value)) }],
        series: [
          {},
          ...lines.map((line) => ({
            label: line.label,
            stroke: line.color,
            fill: `${line.color}22`,
            width: 1.5,
            points: { show: false },
            value: (_: uPlot, value: number | null) => (value === null ? '' : write(value)),
          })),
        ],
      },
      data,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(element.clientWidth, 100), height }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
    // The plot lives as long as its lines; data flows below.
    // eslint-disable-next-line react-hooks/exhaustive-deps
  }, [height, lines, write]);

  useEffect(() => plot.current?.setData(data), [data]);

  return <div ref={box} role="img" aria-label={`Chart: ${lines.map((line) => line.label).join(', ')}`} />;
}
