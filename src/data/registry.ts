/** The data sets that Fovea knows by name. A new one is one row here, whatever its format. */
import { UsageError, unknownName } from '../util/errors.ts'
import { cifar10, cifar100, cifar100Coarse } from './cifar.ts'
import { loadCifarDataSet } from './cifar-data-set.ts'
import type { DataSet, DataSetDescription, LoadOptions } from './data-set.ts'
import {
  fashionMnist,
  fashionMnistSubset,
  loadFashionMnist,
  loadFashionMnistSubset,
} from './fashion-mnist.ts'
import { isImageFolder, loadImageFolder } from './image-folder.ts'
import { loadMnist, mnist } from './mnist.ts'

interface Entry {
  readonly definition: Omit<DataSetDescription, 'classCount'> & { readonly classes: readonly string[] }
  readonly load: (options: LoadOptions) => Promise<DataSet>
}

const entries: readonly Entry[] = [
  { definition: fashionMnist, load: loadFashionMnist },
  { definition: fashionMnistSubset, load: loadFashionMnistSubset },
  { definition: mnist, load: loadMnist },
  ...[cifar10, cifar100, cifar100Coarse].map(definition => ({
    definition,
    load: (options: LoadOptions) => loadCifarDataSet(definition, options),
  })),
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
 * Loads a data set by name, from the first place that has it, or a folder of pictures as `folder:PATH`; see
 * docs/data.md.
 * @throws UsageError for an unknown name, or a folder that lacks a file; FoveaError where nothing has the
 *   data.
 */
export async function loadDataSet(name: string, options: LoadOptions = {}): Promise<DataSet> {
  if (isImageFolder(name)) {
    if (options.folder !== undefined)
      throw new UsageError(
        `data set ${name}: expected no other folder beside its own, received ${options.folder}`,
      )
    return await loadImageFolder(name, options)
  }
  if (options.skipUndecodable)
    throw new UsageError(
      `data set ${name}: undecodable pictures can be skipped in a folder:PATH only, received a published data set`,
    )
  const entry = entries.find(({ definition }) => definition.name === name)
  if (entry === undefined) throw unknownName('data set', name, dataSetNames)
  return await entry.load(options)
}
