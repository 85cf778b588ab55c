import { Button } from '@fluentui/react-components'
import { AddRegular } from '@fluentui/react-icons/svg/add'
import { GroupRegular } from '@fluentui/react-icons/svg/group'
import { useState } from 'react'
import { useTranslation } from 'react-i18next'
import { listEnvironments } from '../../api/calls'
import { deleteGroup, listGroups, type Group } from '../../api/policies'
import { useData } from '../../api/use'
import { useMay } from '../../app/session'
import { useNotify } from '../../app/toast'
import { useFormat } from '../../i18n/names'
import { FilterBar, SearchFilter, useFilter } from '../../ui/Filters'
import { Ago } from '../../ui/marks'
import { Page } from '../../ui/Page'
import { PlainTable } from '../../ui/PlainTable'
import { Panel } from '../../ui/Panel'
import { Empty, Failure, Loading, useErrorText } from '../../ui/states'
import { Confirm } from '../environment/Confirm'
import { GroupDialog } from './GroupDialog'

/** Device groups: which devices are in them, and which one counts first. */
export default function Groups() {
  const { t } = useTranslation()
  const format = useFormat()
  const notify = useNotify()
  const errorText = useErrorText()
  const may = useMay('policies.manage')
  const [query, setQuery] = useFilter('q')
  const [editing, setEditing] = useState<Group | 'new'>()
  const [deleting, setDeleting] = useState<Group>()
  const { data, error, reload } = useData('groups', listGroups, ['group', 'device'], 1_000)
  const environments = useData('environments', listEnvironments, ['plan'])
  const environmentName = (id: string) => environments.data?.items.find((e) => e.id === id)?.name ?? id
  const rules = (g: Group) => [
    g.match.environment && t('groups.inEnvironment', { name: environmentName(g.match.environment) }),
    g.match.name && t('groups.named', { name: g.match.name }),
    g.match.osPlatform && t('groups.platform', { name: g.match.osPlatform }),
    ...(g.match.tags ?? []).map((tag) => t('groups.tagged', { tag: `${tag.key}=${tag.value}` })),
  ].filter(Boolean).join(t('policies.comma')) || t('groups.everything')
  const remove = (group: Group) => {
    setDeleting(undefined)
    deleteGroup(group.id).then(() => notify('success', t('groups.deleted', { name: group.name })), (e: unknown) => notify('error', t('groups.deleteFailed'), errorText(e))).finally(reload)
  }
  const create = <Button appearance="primary" icon={<AddRegular />} disabled={!may} onClick={() => setEditing('new')} data-testid="group-create">{t('groups.create')}</Button>
  const items = data?.items.filter((g) => g.name.toLowerCase().includes(query.toLowerCase())) ?? []
  return (
    <Page title={t('nav.groups')} subtitle={t('groups.intro')} crumbs={[{ to: '/policies', label: t('nav.policies') }]} actions={data && data.items.length > 0 ? create : undefined}>
      {!data ? (error ? <Failure error={error} retry={reload} /> : <Loading />)
        : data.items.length === 0 ? <Empty icon={<GroupRegular />} title={t('groups.none')} action={create}>{t('groups.noneText')}</Empty>
          : (
            <Panel title={t('nav.groups')}>
              <FilterBar count={t('list.count', { count: items.length, number: format.number(items.length) })}><SearchFilter label={t('groups.search')} value={query} set={setQuery} testid="group-search" /></FilterBar>
              <PlainTable
                label={t('nav.groups')} items={items} rowId={(g) => g.id} rowTestid="group-row"
                columns={[
                  { id: 'name', header: t('policies.name'), cell: (g) => g.name },
                  { id: 'rank', header: t('groups.rank'), tight: true, cell: (g) => format.number(g.rank) },
                  { id: 'match', header: t('groups.match'), cell: rules },
                  { id: 'devices', header: t('policies.devices'), tight: true, cell: (g) => format.number(g.devices) },
                  { id: 'updated', header: t('policies.updated'), tight: true, cell: (g) => <Ago time={g.updatedAt} /> },
                  { id: 'edit', header: t('groups.action'), tight: true, cell: (g) => (
                    <>
                      <Button size="small" appearance="subtle" disabled={!may} onClick={() => setEditing(g)} data-testid="group-edit">{t('groups.edit')}</Button>
                      <Button size="small" appearance="subtle" disabled={!may} onClick={() => setDeleting(g)} data-testid="group-delete">{t('groups.delete')}</Button>
                    </>
                  ) },
                ]}
              />
            </Panel>
          )}
      {editing && <GroupDialog group={editing === 'new' ? undefined : editing} environments={environments.data?.items ?? []} saved={reload} close={() => setEditing(undefined)} />}
      {deleting && <Confirm title={t('groups.deleteTitle', { name: deleting.name })} text={t('groups.deleteText')} act={t('groups.delete')} confirm={() => remove(deleting)} close={() => setDeleting(undefined)} />}
    </Page>
  )
}
