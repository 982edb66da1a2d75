/** The data sets that Fovea knows by name. A new one is one row here, whatever its format. */
import { unknownName } from '../util/errors.ts'
import type { DataSet, DataSetDescription, LoadOptions } from './data-set.ts'
import {
  fashionMnist,
  fashionMnistSubset,
  loadFashionMnist,
  loadFashionMnistSubset,
} from './fashion-mnist.ts'
import { loadMnist, mnist } from './mnist.ts'

interface Entry {
  readonly definition: Omit<DataSetDescription, 'classCount'> & { readonly classes: readonly string[] }
  readonly load: (options: LoadOptions) => Promise<DataSet>
}

const entries: readonly Entry[] = [
  { definition: fashionMnist, load: loadFashionMnist },
  { definition: fashionMnistSubset, load: loadFashionMnistSubset },
  { definition: mnist, load: loadMnist },
]

/** The known names, as `fashion-mnist`. */
export const dataSetNames: readonly string[] = entries.map(({ definition }) => definition.name)

/** What is known of each data set, without loading any. */
export function describeDataSets(): DataSetDescription[] {
  return entries.map(({ definition }) => {
    const { name, title, imageShape, classes, train, test, source, licence } = definition
    return { name, title, imageShape, classCount: classes.length, train, test, source, licence }
  })
}

/**
 * Loads a data set by name, from the first place that has it; see docs/data.md for the order.
 * @throws UsageError for an unknown name, or a folder that lacks a file; FoveaError where nothing has the data.
 */
export async function loadDataSet(name: string, options: LoadOptions = {}): Promise<DataSet> {
  const entry = entries.find(({ definition }) => definition.name === name)
  if (entry === undefined) throw unknownName('data set', name, dataSetNames)
  return await entry.load(options)
}
