import { DocumentRegular } from '@fluentui/react-icons/svg/document'
import { useTranslation } from 'react-i18next'
import { RouteLink } from '../ui/links'
import { Page } from '../ui/Page'
import { Empty } from '../ui/states'

export function NotFound() {
  const { t } = useTranslation()
  return (
    <Page title={t('notFound.title')}>
      <Empty testid="not-found" icon={<DocumentRegular />} title={t('notFound.text')} action={<RouteLink to="/">{t('nav.home')}</RouteLink>} />
    </Page>
  )
}
